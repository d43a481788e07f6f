//! `weir serve`: console, policy delivery, metrics and PostgreSQL's wire over the tables, without ingest.

use super::{configuration, existing_store, stop_on_signal};
use crate::cli::{Common, ServeArgs};
use crate::error::Result;
use crate::http::{self, Listener, Readiness};
use crate::postgres::{self, Postgres};
use crate::services::{self, Access, PolicyTopic};
use crate::upkeep;

/// Serves until a signal stops it.
pub async fn run(common: &Common, args: ServeArgs) -> Result<()> {
    let config = configuration(common)?;
    let access = Access::read(&config)?;
    let store = existing_store(&config).await?;
    let listener = Listener::bind(args.listen.as_deref().unwrap_or(&config.http.listen)).await?;
    let postgres = Postgres::bind(&config).await?;
    let metrics = http::install_metrics()?;
    // Nothing streams here, so there is nothing to wait for.
    let readiness = Readiness::of(&[]);
    let stop = stop_on_signal();
    let router = services::router(
        &config,
        &store,
        access,
        http::operations(metrics, readiness),
        PolicyTopic::Create,
        stop.clone(),
    )
    .await?;
    eprintln!("weir: console and services at {}", listener.url());
    let mut postgres = postgres.map(|postgres| {
        eprintln!("weir: PostgreSQL's wire at {}", postgres.address());
        postgres.start(store.clone(), stop.clone())
    });
    let mut upkeep = upkeep::start(&store, &config, stop.clone());
    let served = tokio::select! {
        served = listener.serve(router, stop) => served,
        failure = postgres::ended(&mut postgres) => Err(failure),
        failure = upkeep.died() => Err(failure),
    };
    upkeep.abort();
    served
}

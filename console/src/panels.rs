//! The panels: a title, a query, and a short-lived cache, so that many open pages cost one query.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use weir_sql::Format;
use weir_store::Store;

/// How old a panel's rows may be before they are read again.
const FRESH_FOR: Duration = Duration::from_secs(2);

/// One panel of the page.
pub(crate) struct Panel {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What to look for, in one line.
    pub(crate) note: &'static str,
    pub(crate) sql: &'static str,
}

/// Every panel, in the order in which the page shows them.
pub(crate) const PANELS: &[Panel] = &[
    Panel {
        name: "workload",
        title: "Workload mix",
        note: "Share of requests per class, over everything summarised so far.",
        sql: include_str!("../sql/workload.sql"),
    },
    Panel {
        name: "models",
        title: "Models",
        note: "Traffic, tokens, cost and latency per executed model; sketches are within 1 %.",
        sql: include_str!("../sql/models.sql"),
    },
    Panel {
        name: "arrivals",
        title: "Arrivals",
        note: "Per ten minutes of event time; a dispersion of 1 is a Poisson process.",
        sql: include_str!("../sql/arrivals.sql"),
    },
    Panel {
        name: "rewards",
        title: "Rewards by policy",
        note: "Mean reported quality per policy version; routing verdicts need the off-policy report, not this table.",
        sql: include_str!("../sql/rewards.sql"),
    },
    Panel {
        name: "policies",
        title: "Policy registry",
        note: "Every event of the registry, newest first.",
        sql: include_str!("../sql/policies.sql"),
    },
];

/// Runs panel queries, one at a time.
pub(crate) struct Panels {
    store: Store,
    cache: Mutex<HashMap<&'static str, (Instant, String)>>,
}

impl Panels {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, cache: Mutex::new(HashMap::new()) }
    }

    /// The panel's rows as a JSON array of objects.
    pub(crate) async fn rows(&self, panel: &Panel) -> Result<String, String> {
        let mut cache = self.cache.lock().await;
        if let Some((read_at, json)) = cache.get(panel.name)
            && read_at.elapsed() < FRESH_FOR
        {
            return Ok(json.clone());
        }
        let context = weir_sql::open(&self.store).await.map_err(|error| error.to_string())?;
        let batches = weir_sql::query(&context, panel.sql).await.map_err(|error| error.to_string())?;
        let json = weir_sql::render(&batches, Format::Json).map_err(|error| error.to_string())?;
        cache.insert(panel.name, (Instant::now(), json.clone()));
        Ok(json)
    }
}

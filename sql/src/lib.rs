//! SQL over everything that a store holds: analytics views, one query function, three ways to write a result, and
//! PostgreSQL's wire for the tools that speak it.
//!
//! **In:** a [`weir_store::Store`] and a query that reads. **Out:** record batches, or a table, CSV or JSON.
//!
//! The views live in `views/*.sql`; [`views()`] lists them. They merge the partial rows that `weir-features` writes, so
//! they are as fresh as the last commit and cost what the partial rows cost, not what the raw rows do; only `quality`,
//! `propensities`, `router_requests`, `gpu_pools`, `axis_mix` and `fingerprints` read raw rows.
//!
//! **Refuses to know:** how rows come to be, and any statement that changes data or settings.

mod error;
pub mod postgres;
mod query;
mod render;
mod statements;
mod views;

pub use error::SqlError;
pub use query::{Context, open, query, write, write_parquet};
pub use render::{Format, render};
pub use statements::split_statements;
pub use views::{View, views};

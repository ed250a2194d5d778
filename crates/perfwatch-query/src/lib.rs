//! Queries over the series of many hosts, and saved views of such queries.
//!
//! A query selects a metric and hosts, and groups their series. Hosts are read one by one on a common time grid
//! ([`QueryEngine`]); formulas combine groups with equal labels. All work is bounded: by stored values, points in
//! memory and time. The response counts what the bounds left out.

mod aggregate;
mod engine;
pub mod formula;
mod groups;
mod plan;
mod request;
mod response;
pub mod views;

pub use engine::{QueryDeps, QueryEngine};
pub use request::{Aggregation, FormulaQuery, Grouping, QueryHosts, QueryRequest, QuerySet, SeriesQuery};
pub use response::{LeftOut, LeftOutReason, QueryCounts, QueryResponse, ResponseSeries};

//! Response of a query.

use perfwatch_model::HostId;
use perfwatch_model::Unit;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Series on a common time grid.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueryResponse {
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    /// Time of the first point.
    pub(crate) start_ms: i64,
    /// Width of a point in milliseconds.
    pub(crate) step_ms: i64,
    /// Number of points of each series.
    pub(crate) points: usize,
    /// Coarsest resolution that was read: `raw`, `1m` or `1h`.
    pub(crate) tier: &'static str,
    /// Number of hosts and series of each query.
    pub(crate) queries: Vec<QueryCounts>,
    /// Series of the visible queries and formulas, largest newest value first.
    pub(crate) series: Vec<ResponseSeries>,
    pub(crate) left_out: LeftOut,
    pub(crate) duration_ms: u64,
}

/// Number of hosts and series of a query or formula.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueryCounts {
    /// Id of the query or formula.
    pub(crate) id: String,
    /// Number of selected hosts that the caller may view.
    pub(crate) hosts: usize,
    /// Number of series before the limit was applied.
    pub(crate) series: usize,
}

/// Series of a group.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResponseSeries {
    /// Id of the query or formula.
    pub(crate) query: String,
    /// Metric; `null` for formulas.
    pub(crate) metric: Option<String>,
    /// Host of the series, if it belongs to a single host.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub(crate) host: Option<HostId>,
    /// Labels of the group: `host`, `instance`, and the key of the tag.
    pub(crate) labels: BTreeMap<String, String>,
    /// Unit of the values; `null` for formulas and unknown metrics.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub(crate) unit: Option<Unit>,
    /// Value per point; `null` for a gap.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Option<f64>>))]
    pub(crate) v: Vec<f64>,
    /// Smallest sample per point, for means.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Option<f64>>>))]
    pub(crate) min: Option<Vec<f64>>,
    /// Largest sample per point, for means.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Option<f64>>>))]
    pub(crate) max: Option<Vec<f64>>,
    /// Number of hosts with a value per point, for sums.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hosts: Option<Vec<u32>>,
}

/// Parts of the answer that the limits do not allow.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeftOut {
    /// Number of selected hosts that were not read, or not completely.
    pub(crate) hosts: usize,
    /// Number of series that were dropped, besides those above the limit of a query.
    pub(crate) series: usize,
    /// Number of points per series that were requested but not returned.
    pub(crate) points: usize,
    /// Limits that took effect.
    pub(crate) reasons: BTreeSet<LeftOutReason>,
    /// Ids and names in the request that match no visible host.
    pub(crate) unknown_hosts: BTreeSet<String>,
}

/// Limit that took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LeftOutReason {
    /// Time of a query.
    Time,
    /// Stored values that a request decodes.
    Values,
    /// Points that a request has in memory.
    Memory,
    /// Series of a query in a response.
    Series,
}

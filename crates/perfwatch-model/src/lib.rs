//! Types shared by all crates: hosts, metrics, shapes and snapshots, their wire and JSON
//! formats, limits on external input, and the clock.
//!
//! Pure data and ports: no threads, sockets or files. [`SystemClock`] is the only access to the
//! real time, and callers receive it as a [`Clock`].

pub mod catalog;
pub mod clock;
pub mod collector_request;
pub mod column;
pub mod compression;
pub mod duration;
pub mod failure_streak;
pub mod fixed_point;
pub mod glob;
pub mod id;
pub mod interner;
pub mod json;
pub mod limit_table;
pub mod limits;
pub mod outbound;
pub mod printable;
pub mod range_set;
pub mod remote_collector;
pub mod selector;
pub mod shape;
pub mod similar_name;
pub mod snapshot;
pub mod task_runs;
pub mod time_expression;
pub mod validation;
pub mod value_format;
pub mod wire;

pub use catalog::{Catalog, MetricDef, MetricKind, Rollup, Unit};
pub use clock::{Clock, ManualClock, SystemClock};
pub use collector_request::{CollectorRequest, CollectorRequests};
pub use column::Column;
pub use duration::HumanDuration;
pub use failure_streak::FailureStreak;
pub use fixed_point::{MAX_SCALED, MISSING, scale, unscale};
pub use id::{BootId, HostId, ambiguous_host_name};
pub use interner::StringInterner;
pub use outbound::OutboundPolicy;
pub use range_set::RangeSet;
pub use selector::{SelectorIndex, SeriesSelector};
pub use shape::{Shape, ShapeId};
pub use snapshot::{CollectorError, HostFacts, HostRef, ProcessRow, Snapshot};

/// Default of a flag that is set unless a request clears it, for `#[serde(default = …)]`.
pub const fn default_true() -> bool {
    true
}

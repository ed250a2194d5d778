//! The nouns every other crate speaks: hosts, metrics, shapes and snapshots, how they travel
//! (compact wire form and JSON), the limits they must keep, and the clock.
//!
//! Pure data: no thread, no socket, no file; the only clock here is the one that is handed in.

pub mod catalog;
pub mod clock;
pub mod duration;
pub mod fixed_point;
pub mod glob;
pub mod id;
pub mod interner;
pub mod json;
pub mod limits;
pub mod remote_collector;
pub mod selector;
pub mod shape;
pub mod snapshot;
pub mod wire;

pub use catalog::{Catalog, MetricDef, MetricKind, Rollup, Unit};
pub use clock::{Clock, ManualClock, SystemClock};
pub use duration::HumanDuration;
pub use fixed_point::{MISSING, scale, unscale};
pub use id::{BootId, HostId};
pub use interner::StringInterner;
pub use selector::SeriesSelector;
pub use shape::{Column, Shape, ShapeId};
pub use snapshot::{CollectorError, HostFacts, HostRef, ProcessRow, Snapshot};

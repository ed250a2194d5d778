//! The nouns every other crate speaks: hosts, metrics, shapes and snapshots, how they travel
//! (compact wire form and JSON), the limits they must keep, and the clock.
//!
//! Pure data: no thread, no socket, no file; the only clock here is the one that is handed in.

pub mod catalog;
pub mod clock;
pub mod id;
pub mod json;
pub mod limits;
pub mod number;
pub mod remote;
pub mod shape;
pub mod snapshot;
pub mod span;
pub mod texts;
pub mod wire;

pub use catalog::{Catalog, Kind, MetricDef, Rollup, Unit};
pub use clock::{Clock, ManualClock, SystemClock};
pub use id::{BootId, HostId};
pub use number::{MISSING, scale, unscale};
pub use shape::{Column, Shape, ShapeId};
pub use snapshot::{CollectorError, HostFacts, HostRef, ProcessRow, Snapshot};
pub use span::Span;
pub use texts::Texts;

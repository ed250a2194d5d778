//! Linux metrics: collectors read the files of a [`Source`] into a [`Reading`] of raw counters,
//! a [`Deriver`] computes samples from two readings, and [`SnapshotBuilder`] adds the shape.
//!
//! The crate starts no threads and reads no clock. The agent runs collectors on worker threads;
//! agentless collection runs all collectors in sequence over a [`Capture`]. Both produce the same
//! samples.

mod cache;
mod capture;
mod collector;
mod collector_set;
mod counter_state;
mod derive;
mod error;
#[cfg(test)]
mod golden_tests;
mod linux;
mod open_files;
mod parse;
mod process_listing;
mod reading;
mod snapshot;
mod source;

pub use cache::CollectorCache;
pub use capture::{Capture, CaptureClock, CaptureError, RecordingSource};
pub use collector::{Cadence, CollectContext, Collector, CollectorOptions, CommandLine, SampleSink};
pub use collector_set::{CollectorSet, boot_id, catalog, read_all, read_one};
pub use counter_state::CounterState;
pub use derive::{Derived, Deriver, Sample};
pub use error::CollectError;
pub use linux::{COLLECTORS, CPUINFO_KEYS};
pub use open_files::max_open_files;
pub use reading::{Part, PartReading, ProcessDetail, Raw, RawProcess, RawSample, Reading};
pub use snapshot::{SNAPSHOT_METRICS, SnapshotBuilder};
pub use source::{FsUsage, LocalRoot, Source};

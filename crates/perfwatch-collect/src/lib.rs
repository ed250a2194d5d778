//! From the kernel to a snapshot: a [`Source`] gives files, collectors read them into a
//! [`Reading`] of raw counters, [`derive`] turns two readings into samples, and
//! [`SnapshotBuilder`] gives those a shape.
//!
//! Starts no thread and knows no clock: the agent runs the collectors on threads of its own,
//! the SSH side runs them in a row over a [`Capture`]; both get the same samples.

mod capture;
mod collector;
mod counter_state;
mod derive;
mod error;
#[cfg(test)]
mod golden_tests;
mod linux;
mod parse;
mod reading;
mod registry;
mod snapshot;
mod source;

pub use capture::{Capture, CaptureClock, CaptureError, RecordingSource};
pub use collector::{
    Cadence, CollectContext, Collector, CollectorCache, CollectorOptions, CommandLine, SampleSink, glob_match,
};
pub use counter_state::CounterState;
pub use derive::{Derived, Deriver, Sample};
pub use error::CollectError;
pub use reading::{Part, PartReading, ProcessDetail, Raw, RawProcess, RawSample, Reading};
pub use registry::{COLLECTORS, CollectorSet, boot_id, catalog, read_all, read_one};
pub use snapshot::SnapshotBuilder;
pub use source::{FsUsage, LocalRoot, Source};

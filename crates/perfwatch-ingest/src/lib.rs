//! Ingestion of snapshots from all sources: submission → [`Pipeline::submit`] → store → acknowledgment → live
//! data and alerting.

mod pipeline;

pub use pipeline::{Pipeline, PipelineDeps, SnapshotClock, Submission, SubmitError};

//! Ingestion of snapshots from all sources: submission → [`Pipeline::submit`] → store → acknowledgment → live
//! data and alerting.

pub mod mirror;
mod mirror_payload;
mod pipeline;

pub use pipeline::{Pipeline, PipelineDeps, ReceivedSnapshot, SnapshotClock, Submission, SubmitError};

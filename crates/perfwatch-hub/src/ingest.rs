//! Ingestion: body → batch → [`Pipeline::submit`] → store → acknowledgment → live.

pub(crate) mod http;
mod limits;
mod pipeline;
mod shape_registry;

pub(crate) use limits::IngestLimits;
pub(crate) use pipeline::{Pipeline, PipelineDeps};

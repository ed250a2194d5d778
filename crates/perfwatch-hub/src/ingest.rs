//! Ingestion: body → batch → [`Pipeline::submit`] → store → acknowledgment → live.

pub(crate) mod http;
mod pipeline;

pub(crate) use pipeline::{Pipeline, PipelineDeps};

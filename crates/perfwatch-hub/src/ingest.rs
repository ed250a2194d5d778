//! The way in: body → batch → [`Pipeline::submit`] → store → ack → live.

mod body;
pub(crate) mod http;
mod pipeline;
mod shape_registry;
mod validate;

pub(crate) use pipeline::{Pipeline, PipelineDeps};

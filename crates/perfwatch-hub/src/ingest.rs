//! The way in: body → batch → [`Pipeline::submit`] → store → ack → live.

mod body;
mod check;
pub(crate) mod http;
mod pipeline;
mod shapes;

pub(crate) use pipeline::{Parts, Pipeline, Submission};

//! `perfwatch simulate`: a fleet that does not exist, with figures like those of real hosts.
//! For a look at the dashboard with many hosts, and for benches; the same seed gives the same
//! figures.

mod host;
mod send;

pub use host::SimHost;
pub(crate) use send::{Simulation, simulate};

//! Simulated fleet of `perfwatch simulate`: hosts with plausible values, for demos, load tests and
//! benchmarks. Equal seeds create equal values.

mod host;
mod sender;

pub use host::SimHost;
pub(crate) use sender::{Simulation, run_simulation};

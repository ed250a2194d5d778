//! `perfwatch simulate`: runs a simulated fleet until a signal.

use crate::shutdown::Shutdown;
use crate::simulate::{Simulation, run_simulation};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Sends the snapshots of the fleet until SIGINT or SIGTERM.
pub(crate) fn simulate(simulation: &Simulation) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    Shutdown::install()?.set_flag(&stop);
    run_simulation(simulation, &stop)
}

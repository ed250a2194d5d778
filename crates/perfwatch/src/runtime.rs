//! Tokio runtime of the short commands.

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};

/// Creates a single-threaded runtime with I/O and time.
pub(crate) fn current_thread() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("runtime")
}

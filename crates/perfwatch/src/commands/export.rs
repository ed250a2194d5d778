//! `perfwatch export`: prints the history of a host as CSV or JSON lines.

use crate::config::Settings;
use crate::{runtime, store};
use perfwatch_history::export::{self, ExportRequest};
use perfwatch_model::{Clock, SystemClock};
use std::io::Write as _;
use std::sync::Arc;

/// Writes the requested range to standard output; a hub may run at the same time.
pub(crate) fn export(settings: &Settings, request: &ExportRequest) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut out = std::io::BufWriter::new(std::io::stdout());
    runtime::current_thread()?.block_on(async {
        let store = store::open_read_only(settings, clock.clone()).await?;
        export::export(store, clock, request, &mut out).await?;
        anyhow::Ok(())
    })?;
    out.flush()?;
    Ok(())
}

//! What is done to history by hand: copies, text, and a fleet that does not exist.

use crate::config::Settings;
use crate::shutdown::Shutdown;
use crate::simulate::{self, Simulation};
use crate::store;
use anyhow::Context as _;
use perfwatch_hub::ExportRequest;
use perfwatch_model::{Clock, SystemClock};
use perfwatch_store::{SqliteOptions, SqliteStore, StoreUrl};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::runtime::Runtime;

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")
}

/// All history in one file.
#[expect(clippy::print_stdout, reason = "what a person at the terminal waits for")]
pub(crate) fn backup(settings: &Settings, to: &Path) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    runtime()?.block_on(async {
        let store = store::open_read_only(settings, clock).await?;
        store.backup(to).await?;
        anyhow::Ok(())
    })?;
    println!("{}: {} MB", to.display(), std::fs::metadata(to)?.len() >> 20);
    Ok(())
}

/// A backup in the place of what is there.
#[expect(clippy::print_stdout, reason = "what a person at the terminal waits for")]
pub(crate) fn restore(settings: &Settings, from: &Path) -> anyhow::Result<()> {
    match store::store_url(settings)? {
        StoreUrl::Sqlite(folder) => {
            let options = SqliteOptions { folder, budget_bytes: settings.hub.disk_budget.0 };
            let before = SqliteStore::restore(&options, from, &SystemClock::new())?;
            println!("restored to {}", options.folder.display());
            if let Some(before) = before {
                println!("what was there is now {}", before.display());
            }
            Ok(())
        }
        StoreUrl::Postgres(url) => {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            runtime()?.block_on(async {
                store::postgres(settings, &url, clock).await?.restore(from).await.map_err(anyhow::Error::from)
            })?;
            println!("restored to the database");
            Ok(())
        }
    }
}

/// History as text, to the terminal.
pub(crate) fn export(settings: &Settings, request: &ExportRequest) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut out = std::io::BufWriter::new(std::io::stdout());
    runtime()?.block_on(async {
        let store = store::open_read_only(settings, clock.clone()).await?;
        perfwatch_hub::export(store, clock, request, &mut out).await?;
        anyhow::Ok(())
    })?;
    out.flush()?;
    Ok(())
}

/// A made-up fleet, until a signal.
pub(crate) fn simulate(simulation: &Simulation) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    Shutdown::install()?.set_flag(&stop);
    simulate::simulate(simulation, &stop)
}

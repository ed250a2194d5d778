//! `perfwatch backup` and `perfwatch restore`.

use crate::config::Settings;
use crate::encryption_keys;
use crate::stdout::write_stdout;
use crate::store_url::StoreUrl;
use crate::{runtime, store};
use perfwatch_model::value_format::format_bytes;
use perfwatch_model::{Clock, SystemClock};
use perfwatch_store::{SqliteOptions, SqliteStore};
use std::path::Path;
use std::sync::Arc;

/// Writes the database to one file; a hub may run at the same time.
pub(crate) fn backup(settings: &Settings, to: &Path) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    runtime::current_thread()?.block_on(async {
        let store = store::open_read_only(settings, clock).await?;
        store.backup(to).await?;
        anyhow::Ok(())
    })?;
    let size = format_bytes(std::fs::metadata(to)?.len() as f64);
    write_stdout(format!("{}: {size}\n", to.display()).as_bytes())?;
    Ok(())
}

/// Replaces the database by a backup. An existing SQLite directory is renamed; a PostgreSQL
/// database must be empty.
pub(crate) fn restore(settings: &Settings, from: &Path) -> anyhow::Result<()> {
    match store::store_url(settings)? {
        StoreUrl::Sqlite(folder) => {
            let options = SqliteOptions { folder, budget_bytes: settings.hub.disk_budget.0 };
            let previous = SqliteStore::restore(&options, from, &SystemClock::new())?;
            write_stdout(format!("restored to {}\n", options.folder.display()).as_bytes())?;
            if let Some(previous) = previous {
                write_stdout(format!("previous data renamed to {}\n", previous.display()).as_bytes())?;
            }
        }
        StoreUrl::Postgres(url) => {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            runtime::current_thread()?.block_on(async {
                store::postgres(settings, &url, clock).await?.restore(from).await.map_err(anyhow::Error::from)
            })?;
            write_stdout("restored to the database\n".to_string().as_bytes())?;
        }
    }
    write_stdout(missing_files(settings).as_bytes())
}

/// What a backup does not contain and the data directory lacks, one sentence per line.
fn missing_files(settings: &Settings) -> String {
    let (key, agent) = (encryption_keys::key_path(settings), settings.data.join("agent"));
    let mut text = String::new();
    if settings.hub.encryption_key.is_none() && !key.exists() {
        text += &format!(
            "Before the first start, copy the encryption key of the former hub to {}: without it, SSH credentials \
             and settings of channels must be entered again.\n",
            key.display()
        );
    }
    if !agent.exists() {
        text += &format!(
            "On the same machine, copy the folder agent of the former hub to {}: without it, the machine appears as \
             a new host.\n",
            agent.display()
        );
    }
    text
}

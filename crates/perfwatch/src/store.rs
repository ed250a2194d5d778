//! Ties the settings to a store.

use crate::config::Settings;
use perfwatch_hub::HistoryConfig;
use perfwatch_model::Clock;
use perfwatch_store::{Location, SqliteOptions, SqliteStore, Store};
use std::sync::Arc;

/// Where history is kept.
pub(crate) fn location(settings: &Settings) -> anyhow::Result<Location> {
    match settings.hub.store.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Ok(text.parse().map_err(|error| anyhow::anyhow!("hub.store: {error}"))?),
        None => Ok(Location::Sqlite(settings.data.join("history"))),
    }
}

/// How it is kept.
pub(crate) fn history(settings: &Settings) -> HistoryConfig {
    let hub = &settings.hub;
    HistoryConfig {
        raw: hub.keep.raw.0,
        minutes: hub.keep.minutes.0,
        hours: hub.keep.hours.0,
        budget_bytes: hub.disk_budget.0,
        min_free_bytes: hub.min_free.0,
    }
}

/// Opens it to read, beside a hub that may run on it.
pub(crate) async fn open_to_read(
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match location(settings)? {
        Location::Sqlite(folder) => Arc::new(SqliteStore::open_to_read(&folder, clock)?),
        Location::Postgres(_) => anyhow::bail!("PostgreSQL"),
    })
}

/// Opens it for a hub.
pub(crate) async fn open(settings: &Settings, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Store>> {
    let budget_bytes = settings.hub.disk_budget.0;
    Ok(match location(settings)? {
        Location::Sqlite(folder) => {
            Arc::new(SqliteStore::open(&SqliteOptions { folder, budget_bytes }, clock)?)
        }
        Location::Postgres(_) => anyhow::bail!("PostgreSQL"),
    })
}

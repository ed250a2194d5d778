//! Opens the store of the settings.

use crate::config::{Secret, Settings};
use crate::store_url::StoreUrl;
use anyhow::Context as _;
use perfwatch_files::Directory;
use perfwatch_history::HistoryConfig;
use perfwatch_model::Clock;
use perfwatch_store::{PostgresStore, SqliteOptions, SqliteStore, Store};
use std::sync::Arc;

/// Returns the configured database; SQLite in the data directory by default.
pub(crate) fn store_url(settings: &Settings) -> anyhow::Result<StoreUrl> {
    let configured = settings.hub.store.clone().map(|text| Secret::from(text).read()).transpose();
    let configured = configured.map_err(|error| anyhow::anyhow!("hub.store: {error}"))?;
    match configured.filter(|text| !text.is_empty()) {
        Some(text) => Ok(text.parse().map_err(|error| anyhow::anyhow!("hub.store: {error}"))?),
        None => Ok(StoreUrl::Sqlite(settings.data.join("history"))),
    }
}

/// Returns the replica of the database, if one is configured.
fn replica_url(settings: &Settings) -> anyhow::Result<Option<String>> {
    let configured = settings.hub.store_replica.as_ref().map(Secret::read).transpose();
    let configured = configured.map_err(|error| anyhow::anyhow!("hub.store_replica: {error}"))?;
    let Some(text) = configured.filter(|text| !text.is_empty()) else { return Ok(None) };
    match (text.parse(), store_url(settings)?) {
        (Ok(StoreUrl::Postgres(url)), StoreUrl::Postgres(_)) => Ok(Some(url)),
        (Ok(_), _) => anyhow::bail!("hub.store_replica: only PostgreSQL has replicas"),
        (Err(error), _) => anyhow::bail!("hub.store_replica: {error}"),
    }
}

/// Reads history on a replica, if there is one.
fn with_replica(store: PostgresStore, replica: Option<String>) -> anyhow::Result<PostgresStore> {
    Ok(match replica {
        Some(url) => store.with_replica(&url)?,
        None => store,
    })
}

/// Returns retention, disk budget and minimum free space.
pub(crate) fn history_config(settings: &Settings) -> HistoryConfig {
    let hub = &settings.hub;
    HistoryConfig {
        raw_retention: hub.retention.raw.0,
        minute_retention: hub.retention.minutes.0,
        hour_retention: hub.retention.hours.0,
        budget_bytes: hub.disk_budget.0,
        min_free_bytes: hub.min_free_space.0,
    }
}

/// Opens the store for a hub; fails if another hub uses the SQLite directory.
pub(crate) async fn open(settings: &Settings, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Store>> {
    let budget_bytes = settings.hub.disk_budget.0;
    let replica = replica_url(settings)?;
    Ok(match store_url(settings)? {
        StoreUrl::Sqlite(folder) => {
            Arc::new(SqliteStore::open(&SqliteOptions { folder, budget_bytes }, clock)?)
        }
        StoreUrl::Postgres(url) => Arc::new(with_replica(postgres(settings, &url, clock).await?, replica)?),
    })
}

/// Opens the store to read history; a hub may run at the same time.
pub(crate) async fn open_read_only(
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn Store>> {
    let replica = replica_url(settings)?;
    Ok(match store_url(settings)? {
        StoreUrl::Sqlite(folder) => Arc::new(SqliteStore::open_read_only(&folder, clock)?),
        StoreUrl::Postgres(url) => {
            Arc::new(with_replica(existing_postgres(settings, &url, clock).await?, replica)?)
        }
    })
}

/// Opens the store to change accounts and tokens, but not history; a hub may run at the same time. Fails if
/// there is no database: a wrong data directory must not get one.
pub(crate) async fn open_shared(
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn Store>> {
    let budget_bytes = settings.hub.disk_budget.0;
    let store: Arc<dyn Store> = match store_url(settings)? {
        StoreUrl::Sqlite(folder) => {
            Arc::new(SqliteStore::open_shared(&SqliteOptions { folder, budget_bytes }, clock)?)
        }
        StoreUrl::Postgres(url) => Arc::new(existing_postgres(settings, &url, clock).await?),
    };
    if !settings.sources.contains_key("hub.disk_budget") {
        perfwatch_settings::apply_stored_budget(&*store).await?;
    }
    Ok(store)
}

/// Connects to the database of a hub, without creating anything in the data directory.
async fn existing_postgres(
    settings: &Settings,
    url: &str,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<PostgresStore> {
    let hub_id = uuid::Uuid::now_v7().to_string();
    Ok(PostgresStore::connect_existing(url, hub_id, settings.hub.disk_budget.0, clock).await?)
}

/// Connects with the hub id of this data directory.
pub(crate) async fn postgres(
    settings: &Settings,
    url: &str,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<PostgresStore> {
    let hub_id = load_or_create_hub_id(settings)?;
    Ok(PostgresStore::connect(url, hub_id, settings.hub.disk_budget.0, clock).await?)
}

/// Maximum length of a configured hub id.
const MAX_HUB_ID_LEN: usize = 64;

/// Loads the id of this hub, unique among the hubs that share a database; creates it on first use.
fn load_or_create_hub_id(settings: &Settings) -> anyhow::Result<String> {
    if let Some(id) = settings.hub.id.as_deref().filter(|id| !id.is_empty()) {
        let is_valid = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        anyhow::ensure!(
            id.len() <= MAX_HUB_ID_LEN && id.chars().all(is_valid),
            "hub.id: invalid id {id:?}; expected 1 to {MAX_HUB_ID_LEN} letters, digits, '.', '_' or '-'"
        );
        return Ok(id.to_owned());
    }
    let path = settings.data.join("hub-id");
    if let Ok(text) = std::fs::read_to_string(&path)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    let id = uuid::Uuid::now_v7().to_string();
    let directory = Directory::create_private(&settings.data);
    directory
        .and_then(|directory| directory.write("hub-id", format!("{id}\n").as_bytes()))
        .with_context(|| path.display().to_string())?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn settings(key: &'static str, value: &str) -> Settings {
        load(None, &[], &[(key, value.to_owned())]).unwrap()
    }

    #[test]
    fn store_is_read_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let text = format!("file:{}", path.display());
        let error = store_url(&settings("hub.store", &text)).unwrap_err().to_string();
        assert!(error.starts_with("hub.store: ") && error.contains("No such file"), "{error}");
        std::fs::write(&path, "postgres://perfwatch:secret@db/perfwatch\n").unwrap();
        let url = store_url(&settings("hub.store", &text)).unwrap();
        assert_eq!(url, StoreUrl::Postgres("postgres://perfwatch:secret@db/perfwatch".to_owned()));
    }

    #[tokio::test]
    async fn replica_must_be_postgres() {
        let clock: Arc<dyn Clock> = Arc::new(perfwatch_model::SystemClock::new());
        let folder = tempfile::tempdir().unwrap();
        let flags = [
            ("data", folder.path().display().to_string()),
            ("hub.store_replica", "postgres://replica/perfwatch".to_owned()),
        ];
        let error = open(&load(None, &[], &flags).unwrap(), clock).await.err().unwrap().to_string();
        assert_eq!(error, "hub.store_replica: only PostgreSQL has replicas");
    }

    #[test]
    fn hub_id_is_configured_or_stored() {
        let folder = tempfile::tempdir().unwrap();
        let stored = settings("data", folder.path().to_str().unwrap());
        let id = load_or_create_hub_id(&stored).unwrap();
        assert_eq!(load_or_create_hub_id(&stored).unwrap(), id);
        let configured = load_or_create_hub_id(&settings("hub.id", "perfwatch-hub-0"));
        assert_eq!(configured.unwrap(), "perfwatch-hub-0");
        for invalid in ["a b", "a/b", &"x".repeat(65)] {
            let error = load_or_create_hub_id(&settings("hub.id", invalid)).unwrap_err().to_string();
            assert!(error.starts_with("hub.id: invalid id"), "{error}");
        }
    }
}

//! Checks of a hub: configuration, data, keys, certificate, listener, store, agents and the embedded agent.

use super::agent::check_collectors;
use super::clock::check_clock;
use super::data::{SpaceNeeds, check_data, check_space, size_of};
use super::hub_listener::{check_certificate_files, check_listener, check_open_files};
use super::hub_store::{StoreState, check_store};
use super::report::Report;
use super::{DoctorFlags, Inspected, check_configuration, finish};
use crate::commands::hub_config;
use crate::config::{ConfigError, Settings};
use crate::store_url::StoreUrl;
use crate::{encryption_keys, store};
use perfwatch_hub::HubConfig;
use perfwatch_model::{Clock, SystemClock};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

/// Disk space that a hub with PostgreSQL uses in its data directory: keys, and binaries of agents.
const POSTGRES_DATA_BYTES: u64 = 16 << 20;

/// Checks the hub of this configuration and prints the results.
pub(crate) fn check_hub_installation(
    inspected: Result<Inspected, ConfigError>,
    flags: DoctorFlags,
) -> anyhow::Result<()> {
    let mut report = Report::default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    if let Some(settings) = check_configuration(&mut report, inspected) {
        let config = check_settings(&mut report, &settings);
        check_disk(&mut report, &settings);
        check_clock(&mut report, clock.wall_ms());
        if let Some(config) = config {
            check_certificate_files(&mut report, config.tls.as_ref(), clock.wall_ms());
            check_listener(&mut report, &config);
            check_open_files(&mut report, settings.hub.limits.max_connections);
        }
        let state = check_store(&mut report, &settings, &clock)?;
        check_key(&mut report, &settings, state);
        match settings.agent_config() {
            Ok(config) => check_collectors(&mut report, &settings, &config, &clock),
            Err(error) => report.warning("collectors", error, "correct the setting of the embedded agent"),
        }
    }
    finish(&report, flags)
}

/// Converts and validates the settings of the hub.
fn check_settings(report: &mut Report, settings: &Settings) -> Option<HubConfig> {
    let config = hub_config(settings).and_then(|config| match config.validate() {
        Ok(()) => Ok(config),
        Err(error) => Err(anyhow::anyhow!("hub.{error}")),
    });
    config.map_err(|error| report.error("settings", format!("{error:#}"), "correct the setting")).ok()
}

/// Data directory, and the space for history where it is stored.
fn check_disk(report: &mut Report, settings: &Settings) {
    let hub = &settings.hub;
    let (limit, min_free) = (hub.disk_budget.0, hub.min_free_space.0);
    let needs = SpaceNeeds { setting: "hub.disk_budget", limit, min_free };
    match store::store_url(settings) {
        Ok(StoreUrl::Sqlite(folder)) if folder.starts_with(&settings.data) => {
            check_data(report, &settings.data, needs);
        }
        Ok(url) => {
            let keys = SpaceNeeds { setting: "data", limit: POSTGRES_DATA_BYTES, min_free: 0 };
            check_data(report, &settings.data, keys);
            if let StoreUrl::Sqlite(folder) = url
                && folder.exists()
            {
                check_space(report, &folder, size_of(&folder), needs);
            }
        }
        // Reported by the check of the store.
        Err(_) => {}
    }
}

/// Key that encrypts secrets. A database whose key is lost has secrets that cannot be read.
fn check_key(report: &mut Report, settings: &Settings, state: StoreState) {
    const CHECK: &str = "encryption key";
    let path = encryption_keys::key_path(settings);
    match encryption_keys::load(settings) {
        Ok(Some(_)) if settings.hub.encryption_key.is_some() => report.ok(CHECK, "hub.encryption_key"),
        Ok(Some(_)) => match std::fs::metadata(&path).map(|metadata| metadata.mode() & 0o077) {
            Ok(0) => report.ok(CHECK, format!("{}; keep a copy apart from backups", path.display())),
            _ => report.warning(
                CHECK,
                format!("{} can be read by other users", path.display()),
                format!("restrict it: chmod 0600 {}; then rotate it: perfwatch rotate-key", path.display()),
            ),
        },
        Ok(None) if state == StoreState::Used => report.error(
            CHECK,
            format!("{} is missing, but there is a database", path.display()),
            "restore the file: without it SSH credentials, channels and two-factor secrets cannot be read",
        ),
        Ok(None) => report.ok(CHECK, format!("{} is created at the first start", path.display())),
        Err(error) => report.error(
            CHECK,
            format!("{error:#}"),
            "restore the key; run doctor as the user of the hub, or as root",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::CheckStatus::{Error, Ok, Warning};
    use super::*;
    use crate::config::load;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn invalid_settings_are_found() {
        for (key, value, expected) in [
            ("hub.public_url", "nonsense", "hub.public_url"),
            ("hub.trusted_proxies", "proxy", "hub.trusted_proxies"),
            ("hub.interval", "1ms", "hub.interval"),
            ("hub.tls.cert", "/etc/cert.pem", "hub.tls: both cert and key"),
            ("hub.admin.password", "file:/nowhere", "hub.admin.password: /nowhere"),
        ] {
            let mut report = Report::default();
            let settings = load(None, &[], &[(key, value.to_owned())]).unwrap();
            assert!(check_settings(&mut report, &settings).is_none(), "{key}");
            let (status, text) = report.result_of("settings");
            assert!(status == Error && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn lost_and_open_keys_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { data: folder.path().to_owned(), ..Settings::default() };
        let check = |state| {
            let mut report = Report::default();
            check_key(&mut report, &settings, state);
            report.result_of("encryption key")
        };
        assert_eq!(check(StoreState::Empty).0, Ok);
        assert_eq!(check(StoreState::Unknown).0, Ok);
        let (status, text) = check(StoreState::Used);
        assert!(status == Error && text.contains("restore the file"), "{text}");
        assert!(!folder.path().join("encryption.key").exists(), "doctor creates no key");
        encryption_keys::load_or_create(&settings).unwrap();
        assert_eq!(check(StoreState::Used).0, Ok);
        let path = folder.path().join("encryption.key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (status, text) = check(StoreState::Used);
        assert!(status == Warning && text.contains("rotate-key"), "{text}");
        std::fs::write(&path, "not a key").unwrap();
        assert_eq!(check(StoreState::Used).0, Error);
    }
}

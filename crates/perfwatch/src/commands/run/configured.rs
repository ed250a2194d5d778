//! Settings of the configuration as the dashboard shows them: their source, and the value of those that cannot be
//! changed while the hub runs.

use crate::config::{SETTINGS, SettingOrigin, Settings};
use perfwatch_settings::{CollectorInfo, ConfiguredSettings, FixedSetting, SettingKey, SettingSource};
use serde_json::Value;

/// Settings whose value may contain a password in an address.
const ADDRESSES: [&str; 2] = ["hub.store", "hub.redis"];

/// Sources of all settings, and the values of those that are fixed.
pub(super) fn configured_settings(settings: &Settings) -> ConfiguredSettings {
    let source = |origin: SettingOrigin| match origin {
        SettingOrigin::File => SettingSource::File,
        SettingOrigin::Environment => SettingSource::Environment,
        SettingOrigin::CommandLine => SettingSource::CommandLine,
    };
    let sources = settings.sources.iter().map(|(key, origin)| (key.clone(), source(*origin)));
    let tree = serde_json::to_value(settings).unwrap_or_default();
    let changeable = SettingKey::ALL.map(|key| key.def().config_key);
    let is_fixed = |key: &str| {
        (key == "data" || key.starts_with("hub.") || key.starts_with("log."))
            && !changeable.contains(&Some(key))
    };
    let fixed = SETTINGS.iter().filter(|(key, _)| is_fixed(key)).map(|(key, description)| FixedSetting {
        key: (*key).to_owned(),
        value: value_text(key, &tree),
        description,
        source: settings.sources.get(*key).map_or(SettingSource::Default, |origin| source(*origin)),
    });
    let collectors = perfwatch_collect::COLLECTORS.iter().map(|collector| CollectorInfo {
        name: collector.name,
        metrics: collector.metrics.len(),
        default_interval_ms: collector.cadence.min_interval().as_secs() * 1_000,
    });
    ConfiguredSettings {
        sources: sources.collect(),
        fixed: fixed.collect(),
        collectors: collectors.collect(),
    }
}

/// Value of a setting as text. Secrets are serialized as `***`.
fn value_text(key: &str, tree: &Value) -> String {
    let value = key.split('.').try_fold(tree, |value, part| value.get(part)).unwrap_or(&Value::Null);
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
            items.collect::<Vec<_>>().join(", ")
        }
        value => value.to_string(),
    };
    if ADDRESSES.contains(&key) { without_credentials(&text) } else { text }
}

/// Address without user, password and parameters.
fn without_credentials(address: &str) -> String {
    let address = address.split(['?', '#']).next().unwrap_or_default();
    match address.split_once("://") {
        Some((scheme, rest)) => {
            format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
        }
        // A list of `key=value`, or a file.
        None if address.contains("password") => "***".to_owned(),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn fixed_settings_are_shown_without_secrets() {
        let variables = [
            ("PERFWATCH_HUB_STORE", "postgres://perfwatch:secret-1@db:5432/perfwatch?sslmode=disable"),
            ("PERFWATCH_HUB_REDIS", "redis://:secret-2@cache:6379/0"),
            ("PERFWATCH_HUB_OIDC_CLIENT_SECRET", "secret-3"),
            ("PERFWATCH_HUB_ADMIN_PASSWORD", "secret-4 is long"),
            ("PERFWATCH_HUB_ENCRYPTION_KEY", "secret-5"),
            ("PERFWATCH_HUB_OIDC_ADMINS", "sre,ops"),
            ("PERFWATCH_HUB_RETENTION_RAW", "3d"),
        ];
        let variables = variables.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let flags = [("hub.listen", "127.0.0.1:0".to_owned())];
        let configured = configured_settings(&load(None, &variables, &flags).unwrap());
        let fixed = |key: &str| configured.fixed.iter().find(|setting| setting.key == key);
        assert_eq!(fixed("hub.store").unwrap().value, "postgres://db:5432/perfwatch");
        assert_eq!(fixed("hub.redis").unwrap().value, "***");
        assert_eq!(fixed("hub.oidc.admins").unwrap().value, "sre, ops");
        assert_eq!(fixed("hub.listen").unwrap().source, SettingSource::CommandLine);
        assert_eq!(fixed("hub.oidc.name").unwrap().source, SettingSource::Default);
        // What can be changed while the hub runs is no fixed setting; it is locked by its source.
        assert!(fixed("hub.retention.raw").is_none() && fixed("agent.hub").is_none());
        assert_eq!(configured.sources["hub.retention.raw"], SettingSource::Environment);
        assert!(!format!("{configured:?}").contains("secret-"));
        assert_eq!(without_credentials("host=db password=secret"), "***");
    }
}

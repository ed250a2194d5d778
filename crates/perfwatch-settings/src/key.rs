//! The settings that can be changed while the hub runs, with their limits and the key of the configuration that
//! locks them. Addresses, keys and paths are not among them: they stay in the configuration.

use perfwatch_auth::SessionLifetimes;
use perfwatch_auth::password::MIN_PASSWORD_CHARS;
use perfwatch_history::HistoryConfig;
use perfwatch_http::rate_limit::RateLimitConfig;
use serde::Serialize;
use std::time::Duration;

/// Page of the dashboard on which a setting is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SettingGroup {
    /// Retention and disk budget of the history.
    Storage,
    /// Collection by agents.
    Collection,
    /// Sessions, passwords and rate limits.
    Security,
    /// Defaults of new notification channels.
    Notifications,
}

/// Setting that can be changed while the hub runs. Its value is a whole number in the unit of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SettingKey {
    /// Retention of raw rows, seconds.
    RawRetention,
    /// Retention of minutes, seconds.
    MinuteRetention,
    /// Retention of hours, seconds.
    HourRetention,
    /// Disk budget of the history, bytes.
    DiskBudget,
    /// Free disk space below which ingestion stops, bytes.
    MinFree,
    /// Interval requested from agents, milliseconds; without a value, each agent uses its own.
    AgentInterval,
    /// Time without requests after which a session expires, seconds.
    SessionIdleTimeout,
    /// Maximum age of a session, seconds.
    SessionMaxAge,
    /// Minimum length of new passwords, characters.
    MinPasswordLength,
    /// Requests per second of an agent.
    AgentRequests,
    /// Requests per second of all ingest clients.
    IngestRequests,
    /// Requests per second of an account, a token or an anonymous address.
    ApiRequests,
    /// Interval of reminders of new channels, seconds; 0 is none.
    ChannelRepeatInterval,
    /// 1 if new channels also notify about resolved incidents, else 0.
    ChannelSendResolved,
}

/// Name and limits of a setting.
#[derive(Debug, Clone, Copy)]
pub struct SettingDef {
    /// Name in the API and the database.
    pub name: &'static str,
    /// Key in the configuration file, if the file can contain it.
    pub config_key: Option<&'static str>,
    /// Page of the setting.
    pub group: SettingGroup,
    /// Smallest value.
    pub min: i64,
    /// Largest value.
    pub max: i64,
}

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;
/// Maximum retention: times before 2020 are rejected, and roll-ups are sized for decades.
const MAX_RETENTION_S: i64 = 3_650 * DAY_S;
const MAX_SIZE_BYTES: i64 = 1 << 50;
/// Minimum interval that agents accept.
pub(crate) const MIN_COLLECTION_INTERVAL_MS: i64 = 250;
/// Maximum interval that agents accept.
pub(crate) const MAX_COLLECTION_INTERVAL_MS: i64 = 3_600_000;
const MAX_RATE: i64 = 1_000_000;
/// Minimum rate of the API: a smaller rate would lock administrators out of this page.
const MIN_API_RATE: i64 = 10;
#[expect(clippy::cast_possible_wrap, reason = "a small constant")]
const MIN_PASSWORD: i64 = MIN_PASSWORD_CHARS as i64;

impl SettingKey {
    /// All settings in the order of the API.
    pub const ALL: [Self; 14] = [
        Self::RawRetention,
        Self::MinuteRetention,
        Self::HourRetention,
        Self::DiskBudget,
        Self::MinFree,
        Self::AgentInterval,
        Self::SessionIdleTimeout,
        Self::SessionMaxAge,
        Self::MinPasswordLength,
        Self::AgentRequests,
        Self::IngestRequests,
        Self::ApiRequests,
        Self::ChannelRepeatInterval,
        Self::ChannelSendResolved,
    ];

    /// Name and limits of the setting.
    pub fn def(self) -> SettingDef {
        use SettingGroup::{Collection, Notifications, Security, Storage};
        let def = |name, config_key, group, (min, max)| SettingDef { name, config_key, group, min, max };
        match self {
            Self::RawRetention => {
                def("raw_retention_s", Some("hub.retention.raw"), Storage, (HOUR_S, MAX_RETENTION_S))
            }
            Self::MinuteRetention => {
                def("minute_retention_s", Some("hub.retention.minutes"), Storage, (HOUR_S, MAX_RETENTION_S))
            }
            Self::HourRetention => {
                def("hour_retention_s", Some("hub.retention.hours"), Storage, (HOUR_S, MAX_RETENTION_S))
            }
            Self::DiskBudget => {
                def("disk_budget_bytes", Some("hub.disk_budget"), Storage, (16 << 20, MAX_SIZE_BYTES))
            }
            Self::MinFree => def("min_free_bytes", Some("hub.min_free_space"), Storage, (0, MAX_SIZE_BYTES)),
            Self::AgentInterval => {
                let range = (MIN_COLLECTION_INTERVAL_MS, MAX_COLLECTION_INTERVAL_MS);
                def("agent_interval_ms", Some("hub.interval"), Collection, range)
            }
            Self::SessionIdleTimeout => {
                let range = (300, 365 * DAY_S);
                def("session_idle_timeout_s", Some("hub.sessions.idle_timeout"), Security, range)
            }
            Self::SessionMaxAge => {
                def("session_max_age_s", Some("hub.sessions.max_age"), Security, (300, 365 * DAY_S))
            }
            Self::MinPasswordLength => def("min_password_length", None, Security, (MIN_PASSWORD, 64)),
            Self::AgentRequests => {
                let key = Some("hub.limits.agent_requests_per_second");
                def("agent_requests_per_second", key, Security, (1, MAX_RATE))
            }
            Self::IngestRequests => {
                let key = Some("hub.limits.ingest_requests_per_second");
                def("ingest_requests_per_second", key, Security, (1, MAX_RATE))
            }
            Self::ApiRequests => {
                let key = Some("hub.limits.api_requests_per_second");
                def("api_requests_per_second", key, Security, (MIN_API_RATE, MAX_RATE))
            }
            Self::ChannelRepeatInterval => {
                def("channel_repeat_interval_s", None, Notifications, (0, 7 * DAY_S))
            }
            Self::ChannelSendResolved => def("channel_send_resolved", None, Notifications, (0, 1)),
        }
    }

    /// Setting with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.def().name == name)
    }

    /// Returns whether the setting may have no value.
    pub fn is_optional(self) -> bool {
        self == Self::AgentInterval
    }
}

/// Value of each setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingValues([Option<i64>; SettingKey::ALL.len()]);

impl SettingValues {
    /// Values of a configuration.
    pub fn new(
        history: &HistoryConfig,
        sessions: SessionLifetimes,
        rates: RateLimitConfig,
        agent_interval: Option<Duration>,
    ) -> Self {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Self(SettingKey::ALL.map(|key| match key {
            SettingKey::RawRetention => Some(seconds(history.raw_retention)),
            SettingKey::MinuteRetention => Some(seconds(history.minute_retention)),
            SettingKey::HourRetention => Some(seconds(history.hour_retention)),
            SettingKey::DiskBudget => Some(bytes(history.budget_bytes)),
            SettingKey::MinFree => Some(bytes(history.min_free_bytes)),
            SettingKey::AgentInterval => agent_interval.and_then(|time| i64::try_from(time.as_millis()).ok()),
            SettingKey::SessionIdleTimeout => Some(seconds(sessions.idle_timeout)),
            SettingKey::SessionMaxAge => Some(seconds(sessions.max_age)),
            SettingKey::MinPasswordLength => Some(MIN_PASSWORD),
            SettingKey::AgentRequests => Some(rates.agent_per_second.into()),
            SettingKey::IngestRequests => Some(rates.ingest_per_second.into()),
            SettingKey::ApiRequests => Some(rates.api_per_second.into()),
            SettingKey::ChannelRepeatInterval => Some(0),
            SettingKey::ChannelSendResolved => Some(1),
        }))
    }

    /// Value of a setting; `None` if an optional setting has none.
    pub fn get(&self, key: SettingKey) -> Option<i64> {
        self.0[key as usize]
    }

    /// Replaces the value of a setting.
    pub fn set(&mut self, key: SettingKey, value: Option<i64>) {
        self.0[key as usize] = value;
    }

    fn unsigned(&self, key: SettingKey) -> u64 {
        self.get(key).and_then(|value| u64::try_from(value).ok()).unwrap_or_default()
    }

    fn seconds(&self, key: SettingKey) -> Duration {
        Duration::from_secs(self.unsigned(key))
    }

    fn rate(&self, key: SettingKey) -> u32 {
        u32::try_from(self.unsigned(key)).unwrap_or(u32::MAX)
    }

    /// Retention and disk limits of the history.
    pub fn history(&self) -> HistoryConfig {
        HistoryConfig {
            raw_retention: self.seconds(SettingKey::RawRetention),
            minute_retention: self.seconds(SettingKey::MinuteRetention),
            hour_retention: self.seconds(SettingKey::HourRetention),
            budget_bytes: self.unsigned(SettingKey::DiskBudget),
            min_free_bytes: self.unsigned(SettingKey::MinFree),
        }
    }

    /// Lifetimes of browser sessions.
    pub fn sessions(&self) -> SessionLifetimes {
        SessionLifetimes {
            idle_timeout: self.seconds(SettingKey::SessionIdleTimeout),
            max_age: self.seconds(SettingKey::SessionMaxAge),
        }
    }

    /// Rate limits of agents and callers.
    pub fn rates(&self) -> RateLimitConfig {
        RateLimitConfig {
            agent_per_second: self.rate(SettingKey::AgentRequests),
            ingest_per_second: self.rate(SettingKey::IngestRequests),
            api_per_second: self.rate(SettingKey::ApiRequests),
        }
    }

    /// Interval requested from agents, milliseconds.
    pub fn agent_interval_ms(&self) -> Option<u32> {
        self.get(SettingKey::AgentInterval).and_then(|value| u32::try_from(value).ok())
    }

    /// Interval of reminders of new channels, seconds; 0 is none.
    pub fn channel_repeat_interval_s(&self) -> i64 {
        self.get(SettingKey::ChannelRepeatInterval).unwrap_or_default()
    }

    /// Returns whether new channels also notify about resolved incidents.
    pub fn channel_send_resolved(&self) -> bool {
        self.get(SettingKey::ChannelSendResolved) == Some(1)
    }

    /// Minimum length of new passwords.
    pub fn min_password_length(&self) -> usize {
        usize::try_from(self.unsigned(SettingKey::MinPasswordLength)).unwrap_or(MIN_PASSWORD_CHARS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_distinct_names_and_valid_defaults() {
        let defaults = SettingValues::new(
            &HistoryConfig::default(),
            SessionLifetimes::default(),
            RateLimitConfig::default(),
            None,
        );
        for (index, key) in SettingKey::ALL.into_iter().enumerate() {
            let def = key.def();
            assert_eq!(key as usize, index, "{}", def.name);
            assert_eq!(SettingKey::from_name(def.name), Some(key));
            assert!(def.min <= def.max);
            match defaults.get(key) {
                Some(value) => assert!((def.min..=def.max).contains(&value), "{}", def.name),
                None => assert!(key.is_optional(), "{}", def.name),
            }
        }
        assert_eq!(defaults.history(), HistoryConfig::default());
        assert_eq!(defaults.agent_interval_ms(), None);
    }
}

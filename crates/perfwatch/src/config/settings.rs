//! Settings with their defaults and descriptions.

use super::values::{Bytes, Duration, Secret};
use perfwatch_collect::CollectorOptions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time;

/// Description of every setting, in the order of `docs/CONFIG.md`, which is generated from it. A
/// test compares the keys with [`Settings`].
pub const SETTINGS: &[(&str, &str)] = &[
    ("data", "Data directory: agent identity, spool, embedded database."),
    (
        "log.level",
        "`error`, `warn`, `info`, `debug` or `trace`; per module: `info,perfwatch_hub=debug`; reloaded from the file at SIGHUP.",
    ),
    ("log.format", "`text` or `json`."),
    ("hub.listen", "Listen address; use `0.0.0.0:8000` or `[::]:8000` to accept remote connections."),
    (
        "hub.public_url",
        "Public URL of the hub, used in links and behind a reverse proxy: `https://watch.example`; with the path \
         if the proxy mounts the hub below one: `https://watch.example/perfwatch/`.",
    ),
    (
        "hub.trusted_proxies",
        "Proxies (addresses or CIDR ranges) whose `X-Forwarded-For`, `-Proto`, `-Host` and `-Port` headers, or \
         `Forwarded` header, are trusted.",
    ),
    (
        "hub.allowed_targets",
        "Addresses or CIDR ranges that notification channels and single sign-on may connect to although they \
         are loopback, link-local or metadata addresses, such as `127.0.0.1` for a mail server on this machine.",
    ),
    (
        "hub.hsts",
        "`max-age` of HTTP Strict Transport Security, such as `365d`, sent over HTTPS. Browsers then refuse \
         plain HTTP on every port of the host name, other hubs included; empty: not sent.",
    ),
    (
        "hub.shutdown_delay",
        "Time between a signal to stop and the end of the listener, at most `5m`: `/readyz` fails, so that load \
         balancers send new connections to other hubs, and each response closes its connection; `0s` for a single hub.",
    ),
    ("hub.tls.cert", "TLS certificate chain (PEM); reloaded on change."),
    ("hub.tls.key", "TLS private key (PEM)."),
    ("hub.admin.name", "Name of the initial administrator."),
    (
        "hub.admin.password",
        "Password of the initial administrator, created if there is no account; \
         `file:PATH` reads it from a file.",
    ),
    (
        "hub.enrollment_token",
        "Enrollment token (`pwe_` and 64 hexadecimal digits) of agents that are installed together with the hub; it is \
         created at the start unless it exists, and is valid for a year; `file:PATH` reads it from a file.",
    ),
    ("hub.oidc.issuer", "OpenID Connect issuer URL; empty disables single sign-on."),
    ("hub.oidc.client_id", "Client ID of the hub at the issuer."),
    ("hub.oidc.client_secret", "Client secret; `file:PATH` reads it from a file."),
    ("hub.oidc.name", "Label of the sign-in button."),
    ("hub.oidc.scopes", "Scopes requested in addition to `openid`."),
    ("hub.oidc.role_claim", "Claim that contains the roles: `groups`, `realm_access.roles`."),
    ("hub.oidc.admins", "Claim values mapped to the role admin."),
    ("hub.oidc.operators", "Claim values mapped to the role operator."),
    ("hub.oidc.viewers", "Claim values mapped to the role viewer."),
    ("hub.oidc.default_role", "Role of users without a matching claim value; empty denies login."),
    ("hub.sessions.idle_timeout", "A session expires after this time without requests."),
    ("hub.sessions.max_age", "Maximum session lifetime."),
    ("hub.limits.agent_requests_per_second", "Requests per second of one agent (burst: five times as many)."),
    ("hub.limits.ingest_requests_per_second", "Requests per second of all ingest clients together."),
    ("hub.limits.api_requests_per_second", "Requests per second of one account, token or anonymous address."),
    ("hub.limits.max_connections", "Maximum open connections."),
    (
        "hub.limits.max_connections_per_address",
        "Maximum open connections of one address; trusted proxies are exempt.",
    ),
    (
        "hub.store",
        "Database: `postgres://user:password@host/database`, `sqlite:DIRECTORY`, or `file:PATH` to read the address \
         from a file; empty: SQLite in the data directory.",
    ),
    (
        "hub.store_replica",
        "Streaming replica of the PostgreSQL database, `postgres://user:password@host/database` or `file:PATH`: history \
         is read there while it has all rows of the primary, otherwise from the primary. Empty: no replica.",
    ),
    (
        "hub.id",
        "Id of this hub among the hubs that share a PostgreSQL database: unique, and the same at each start, because \
         the newest snapshots in the database belong to it. 1 to 64 letters, digits, `.`, `_` or `-`; empty: created in the data \
         directory.",
    ),
    (
        "hub.disk_budget",
        "Maximum disk space for history; the most detailed, oldest data is deleted first. At least 16MB.",
    ),
    (
        "hub.min_free_space",
        "Ingestion stops while the file system of the data has less free space than this.",
    ),
    ("hub.retention.raw", "Retention of raw snapshots, processes included."),
    ("hub.retention.minutes", "Retention of 1-minute roll-ups."),
    ("hub.retention.hours", "Retention of 1-hour roll-ups."),
    (
        "hub.encryption_key",
        "Keys that encrypt SSH credentials, channel settings and two-factor secrets: \
         64 hexadecimal digits per line, or `file:PATH`. The first key \
         encrypts, all decrypt. Empty: a key is created in the data directory.",
    ),
    (
        "hub.redis",
        "Redis shared by several hubs: `redis://:password@host:6379/0`, \
         `redis+sentinel://:password@host:26379,host:26379/SERVICE/0` for Redis Sentinel, `rediss://…` and \
         `rediss+sentinel://…` for TLS, or `file:PATH`; empty for a single hub. Losing Redis loses no data.",
    ),
    ("hub.agentless.workers", "Concurrent SSH collections."),
    ("hub.interval", "Interval requested from agents; empty: each agent uses its own."),
    ("agent.hub", "Hub URL: `https://hub.example:8000`."),
    (
        "agent.token",
        "Enrollment token (used once) or a token with the scope `ingest`; `file:PATH` reads it from a file.",
    ),
    ("agent.ca", "CA certificates (PEM) that may sign the hub's certificate; empty: the system's CAs."),
    ("agent.name", "Host name shown in PerfWatch; empty: the system host name."),
    ("agent.interval", "Collection interval, 250 ms to 1 h."),
    (
        "agent.host_root",
        "Path where the root directory of the monitored host is mounted in a container, such as `/host`: default of \
         `agent.procfs` (`/host/proc`), `agent.sysfs` (`/host/sys`) and `agent.rootfs` (`/host`). Empty: the agent \
         monitors its own machine.",
    ),
    ("agent.procfs", "Path of the monitored host's `/proc`."),
    ("agent.sysfs", "Path of the monitored host's `/sys`."),
    ("agent.rootfs", "Path of the monitored host's `/`."),
    ("agent.collectors.disabled", "Disabled collectors, by name."),
    ("agent.collectors.intervals", "Minimum interval per collector: `filesystem: 30s`."),
    ("agent.processes.top", "Top processes by CPU; half as many by memory and by I/O are added."),
    ("agent.processes.command_line", "`masked` (secrets replaced by `***`), `full` or `none`."),
    (
        "agent.exclude.interfaces",
        "Excluded network interfaces (`*` matches any text); not part of the totals.",
    ),
    ("agent.exclude.devices", "Excluded block devices; not part of the totals."),
    ("agent.exclude.mounts", "Excluded mount points."),
    ("agent.exclude.metrics", "Excluded metrics: `tcp.*`."),
    ("agent.spool_max_size", "Maximum spool size on disk; the oldest snapshots are dropped first."),
    ("agent.max_backoff", "Maximum delay between attempts to reach the hub."),
];

/// Root of the configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "SETTINGS describes each setting")]
pub struct Settings {
    pub data: PathBuf,
    pub log: LogSettings,
    pub hub: HubSettings,
    pub agent: AgentSettings,
    /// Origin of each setting that is not a default, by its key.
    #[serde(skip)]
    pub sources: BTreeMap<String, SettingOrigin>,
}

/// Origin of the value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingOrigin {
    /// Configuration file.
    File,
    /// Environment variable.
    Environment,
    /// Flag of the command line.
    CommandLine,
}

/// Settings of the section `log.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Level, or a comma-separated list of levels per module.
    pub level: String,
    /// Output format of the log.
    pub format: LogFormat,
}

/// Output format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per line.
    Json,
}

/// Settings of the section `hub.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubSettings {
    pub listen: String,
    pub public_url: Option<String>,
    pub trusted_proxies: Vec<String>,
    pub allowed_targets: Vec<String>,
    pub hsts: Option<Duration>,
    pub shutdown_delay: Duration,
    pub tls: TlsSettings,
    pub admin: AdminSettings,
    pub enrollment_token: Option<Secret>,
    pub oidc: OidcSettings,
    pub sessions: SessionSettings,
    pub limits: LimitSettings,
    pub encryption_key: Option<Secret>,
    pub redis: Option<Secret>,
    pub agentless: AgentlessSettings,
    pub interval: Option<Duration>,
    pub store: Option<String>,
    pub store_replica: Option<Secret>,
    pub id: Option<String>,
    pub disk_budget: Bytes,
    pub min_free_space: Bytes,
    pub retention: RetentionSettings,
}

/// Settings of the section `hub.agentless.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentlessSettings {
    pub workers: usize,
}

/// Settings of the section `hub.tls.*`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Settings of the section `hub.admin.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    pub name: String,
    pub password: Option<Secret>,
}

/// Settings of the section `hub.oidc.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OidcSettings {
    pub issuer: Option<String>,
    pub client_id: String,
    pub client_secret: Option<Secret>,
    pub name: String,
    pub scopes: Vec<String>,
    pub role_claim: String,
    pub admins: Vec<String>,
    pub operators: Vec<String>,
    pub viewers: Vec<String>,
    pub default_role: Option<String>,
}

/// Settings of the section `hub.sessions.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSettings {
    pub idle_timeout: Duration,
    pub max_age: Duration,
}

/// Settings of the section `hub.limits.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    pub agent_requests_per_second: u32,
    pub ingest_requests_per_second: u32,
    pub api_requests_per_second: u32,
    pub max_connections: usize,
    pub max_connections_per_address: usize,
}

/// Settings of the section `hub.retention.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    pub raw: Duration,
    pub minutes: Duration,
    pub hours: Duration,
}

/// Settings of the section `agent.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSettings {
    pub hub: String,
    pub token: Option<Secret>,
    pub ca: Option<PathBuf>,
    pub name: Option<String>,
    pub interval: Duration,
    pub host_root: Option<PathBuf>,
    pub procfs: PathBuf,
    pub sysfs: PathBuf,
    pub rootfs: PathBuf,
    pub collectors: CollectorSettings,
    pub processes: ProcessSettings,
    pub exclude: ExcludeSettings,
    pub spool_max_size: Bytes,
    pub max_backoff: Duration,
}

/// Settings of the section `agent.collectors.*`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectorSettings {
    pub disabled: Vec<String>,
    pub intervals: BTreeMap<String, Duration>,
}

/// Settings of the section `agent.processes.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSettings {
    pub top: usize,
    pub command_line: CommandLineSetting,
}

/// Part of a process's command line that leaves the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandLineSetting {
    None,
    Masked,
    Full,
}

/// Settings of the section `agent.exclude.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExcludeSettings {
    pub interfaces: Vec<String>,
    pub devices: Vec<String>,
    pub mounts: Vec<String>,
    pub metrics: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: default_data(),
            log: LogSettings::default(),
            hub: HubSettings::default(),
            agent: AgentSettings::default(),
            sources: BTreeMap::new(),
        }
    }
}

/// Returns `/var/lib/perfwatch` for root, and the XDG state directory for other users.
fn default_data() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    match (state, home) {
        (Some(state), _) => state.join("perfwatch"),
        (None, Some(home)) if home != Path::new("/root") => home.join(".local/state/perfwatch"),
        _ => PathBuf::from("/var/lib/perfwatch"),
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8000".to_owned(),
            public_url: None,
            trusted_proxies: Vec::new(),
            allowed_targets: Vec::new(),
            hsts: None,
            shutdown_delay: Duration(time::Duration::ZERO),
            tls: TlsSettings::default(),
            admin: AdminSettings::default(),
            enrollment_token: None,
            oidc: OidcSettings::default(),
            sessions: SessionSettings::default(),
            limits: LimitSettings::default(),
            encryption_key: None,
            redis: None,
            agentless: AgentlessSettings::default(),
            interval: None,
            store: None,
            store_replica: None,
            id: None,
            disk_budget: Bytes(10 << 30),
            min_free_space: Bytes(256 << 20),
            retention: RetentionSettings::default(),
        }
    }
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { name: "admin".to_owned(), password: None }
    }
}

impl Default for OidcSettings {
    fn default() -> Self {
        Self {
            issuer: None,
            client_id: "perfwatch".to_owned(),
            client_secret: None,
            name: "Single sign-on".to_owned(),
            scopes: vec!["profile".to_owned(), "email".to_owned()],
            role_claim: "groups".to_owned(),
            admins: Vec::new(),
            operators: Vec::new(),
            viewers: Vec::new(),
            default_role: None,
        }
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        let days = |days: u64| Duration(time::Duration::from_secs(days * 86_400));
        Self { idle_timeout: days(7), max_age: days(30) }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            agent_requests_per_second: 20,
            ingest_requests_per_second: 10_000,
            api_requests_per_second: 100,
            max_connections: 20_000,
            max_connections_per_address: 2_000,
        }
    }
}

impl Default for AgentlessSettings {
    fn default() -> Self {
        Self { workers: 5 }
    }
}

impl Default for RetentionSettings {
    fn default() -> Self {
        let days = |days: u64| Duration(time::Duration::from_secs(days * 86_400));
        Self { raw: days(14), minutes: days(90), hours: days(730) }
    }
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            hub: "http://127.0.0.1:8000".to_owned(),
            token: None,
            ca: None,
            name: None,
            interval: Duration(time::Duration::from_secs(2)),
            host_root: None,
            procfs: "/proc".into(),
            sysfs: "/sys".into(),
            rootfs: "/".into(),
            collectors: CollectorSettings::default(),
            processes: ProcessSettings::default(),
            exclude: ExcludeSettings::default(),
            spool_max_size: Bytes(256 << 20),
            max_backoff: Duration(time::Duration::from_secs(10)),
        }
    }
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self { top: CollectorOptions::default().top_processes, command_line: CommandLineSetting::Masked }
    }
}

impl Default for ExcludeSettings {
    fn default() -> Self {
        let options = CollectorOptions::default();
        Self {
            interfaces: options.exclude_interfaces,
            devices: options.exclude_devices,
            mounts: options.exclude_mounts,
            metrics: options.exclude_metrics,
        }
    }
}

//! The settings as a user writes them, and what each is for.

use super::values::{Bytes, Duration, Secret};
use perfwatch_agent::AgentConfig;
use perfwatch_collect::{CollectorOptions, CommandLine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time;

/// Every setting and its sentence; a test holds it against [`Settings`], and
/// `docs/CONFIG.md` is made of it.
pub const SETTINGS: &[(&str, &str)] = &[
    ("data", "Data directory [env: PERFWATCH_DATA]: the agent's identity and spool."),
    (
        "log.level",
        "`error`, `warn`, `info`, `debug` or `trace`, also per module: `info,perfwatch_hub=debug`.",
    ),
    ("log.format", "`text` or `json`."),
    ("hub.listen", "Address and port of the hub; `0.0.0.0:8000` or `[::]:8000` for other machines too."),
    (
        "hub.public_url",
        "How people reach the hub, as `https://watch.example`: for links, and for a proxy that changes the name.",
    ),
    (
        "hub.trusted_proxies",
        "Addresses or networks of proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are believed.",
    ),
    ("hub.tls.cert", "Certificate with its chain (PEM), to speak TLS; read again when it changes."),
    ("hub.tls.key", "Key of the certificate (PEM)."),
    ("hub.admin.name", "Name of the administrator that `hub.admin.password` makes."),
    (
        "hub.admin.password",
        "Makes the first administrator without the link, where there is no account yet; `file:PATH` reads it from a file.",
    ),
    ("hub.oidc.issuer", "Address of an OpenID Connect issuer, for single sign-on; empty for none."),
    ("hub.oidc.client_id", "As which the hub is known to the issuer."),
    ("hub.oidc.client_secret", "Proves that; `file:PATH` reads it from a file."),
    ("hub.oidc.name", "Label of the sign-in button."),
    ("hub.oidc.scopes", "Scopes requested in addition to `openid`."),
    ("hub.oidc.role_claim", "Which claim tells roles: `groups`, `realm_access.roles`."),
    ("hub.oidc.admins", "Claim values mapped to the role admin."),
    ("hub.oidc.operators", "Values of that claim that make an operator."),
    ("hub.oidc.viewers", "Values of that claim that make a viewer."),
    ("hub.oidc.default_role", "Role of users without a matching claim value; empty denies login."),
    ("hub.sessions.idle_timeout", "A browser that asks for nothing this long is logged out."),
    ("hub.sessions.max_age", "Every browser is logged out after this long."),
    ("hub.limits.agent_requests_per_second", "Requests a second of one agent; five times as many at once."),
    ("hub.limits.ingest_requests_per_second", "Requests a second of all that send together."),
    ("hub.limits.api_requests_per_second", "Requests a second of one account, token or unknown address."),
    ("hub.limits.max_connections", "Open connections."),
    (
        "hub.limits.max_connections_per_address",
        "Open connections of one address; trusted proxies have no bound.",
    ),
    (
        "hub.store",
        "Where history is kept: `postgres://user@host/database`, or `sqlite:FOLDER`; empty for SQLite in the data folder.",
    ),
    ("hub.disk_budget", "What history may take on disk; the oldest detail goes first. At least 16MB."),
    (
        "hub.min_free_space",
        "With less than this free on the file system of history, nothing is taken in until there is more.",
    ),
    ("hub.retention.raw", "How long every tick is kept, with its processes."),
    ("hub.retention.minutes", "How long figures of each minute are kept."),
    ("hub.retention.hours", "How long figures of each hour are kept."),
    (
        "hub.encryption_key",
        "What credentials of servers, settings of channels and second factors are sealed by: 64 hexadecimal digits, or `file:PATH`; more lines open what was sealed before. Empty for one of its own in the data folder.",
    ),
    (
        "hub.redis",
        "Where several hubs share what each of them saw last: `redis://:password@host:6379/0`, `rediss://…` for TLS, or `file:PATH`; empty for one hub. Nothing is lost while it is away.",
    ),
    ("hub.agentless.workers", "Concurrent SSH collections."),
    ("hub.interval", "Interval requested from agents; empty: each agent uses its own."),
    ("agent.hub", "Where the agent sends: `https://hub.example:8000`."),
    (
        "agent.token",
        "What lets it in: an enrolment token, used once, or a token with the scope ingest; `file:PATH` reads it from a file.",
    ),
    (
        "agent.ca",
        "File with the authorities that may have signed the hub's certificate (PEM); empty for those of the system.",
    ),
    ("agent.name", "Host name shown in PerfWatch [default: the system host name]; empty for its host name."),
    ("agent.interval", "Time between two snapshots, 250 ms to 1 h."),
    ("agent.procfs", "Where the watched host's `/proc` is mounted (containers: `/host/proc`)."),
    ("agent.sysfs", "Where the watched host's `/sys` is mounted."),
    ("agent.rootfs", "Where the watched host's `/` is mounted."),
    ("agent.collectors.disabled", "Collectors that are switched off, by name."),
    ("agent.collectors.intervals", "Least time between two reads, by collector: `filesystem: 30s`."),
    ("agent.processes.top", "Process rows by CPU; half as many by memory and by I/O join them."),
    ("agent.processes.command_line", "`masked` (secrets replaced by `***`), `full` or `none`."),
    ("agent.exclude.interfaces", "Network interfaces that are left out; `*` stands for any text."),
    ("agent.exclude.devices", "Block devices that are left out."),
    ("agent.exclude.mounts", "Mount points that are left out."),
    ("agent.exclude.metrics", "Metrics that are left out: `tcp.*`."),
    ("agent.spool_max_size", "Most disk space for snapshots that wait for the hub; the oldest go first."),
    ("agent.max_backoff", "Longest pause between two tries to reach the hub."),
];

/// All settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "KEYS says what each setting is")]
pub struct Settings {
    pub data: PathBuf,
    pub log: LogSettings,
    pub hub: HubSettings,
    pub agent_config: AgentSettings,
}

/// `log.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Levels, as KEYS says.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `hub.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubSettings {
    pub listen: String,
    pub public_url: Option<String>,
    pub trusted_proxies: Vec<String>,
    pub tls: TlsSettings,
    pub admin: AdminSettings,
    pub oidc: OidcSettings,
    pub sessions: SessionSettings,
    pub limits: LimitSettings,
    pub encryption_key: Option<Secret>,
    pub redis: Option<Secret>,
    pub agentless: AgentlessSettings,
    pub interval: Option<Duration>,
    pub store: Option<String>,
    pub disk_budget: Bytes,
    pub min_free_space: Bytes,
    pub retention: RetentionSettings,
}

/// `hub.servers.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentlessSettings {
    pub workers: usize,
}

/// `hub.tls.*`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// `hub.admin.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    pub name: String,
    pub password: Option<Secret>,
}

/// `hub.oidc.*`
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

/// `hub.sessions.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSettings {
    pub idle_timeout: Duration,
    pub max_age: Duration,
}

/// `hub.limits.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    pub agent_requests_per_second: u32,
    pub ingest_requests_per_second: u32,
    pub api_requests_per_second: u32,
    pub max_connections: usize,
    pub max_connections_per_address: usize,
}

/// `hub.keep.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionSettings {
    pub raw: Duration,
    pub minutes: Duration,
    pub hours: Duration,
}

/// `agent.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSettings {
    pub hub: String,
    pub token: Option<Secret>,
    pub ca: Option<PathBuf>,
    pub name: Option<String>,
    pub interval: Duration,
    pub procfs: PathBuf,
    pub sysfs: PathBuf,
    pub rootfs: PathBuf,
    pub collectors: CollectorSettings,
    pub processes: ProcessSettings,
    pub exclude: ExcludeSettings,
    pub spool_max_size: Bytes,
    pub max_backoff: Duration,
}

/// `agent.collectors.*`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectorSettings {
    pub disabled: Vec<String>,
    pub intervals: BTreeMap<String, Duration>,
}

/// `agent.processes.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSettings {
    pub top: usize,
    pub command_line: CommandLineSetting,
}

/// How much of a command line leaves the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandLineSetting {
    None,
    Masked,
    Full,
}

/// `agent.exclude.*`
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
            agent_config: AgentSettings::default(),
        }
    }
}

/// Root keeps its data where services do, others in their home.
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
            tls: TlsSettings::default(),
            admin: AdminSettings::default(),
            oidc: OidcSettings::default(),
            sessions: SessionSettings::default(),
            limits: LimitSettings::default(),
            encryption_key: None,
            redis: None,
            agentless: AgentlessSettings::default(),
            interval: None,
            store: None,
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

impl Settings {
    /// What collectors are told.
    pub fn collector_options(&self) -> CollectorOptions {
        let agent = &self.agent_config;
        CollectorOptions {
            top_processes: agent.processes.top,
            command_line: match agent.processes.command_line {
                CommandLineSetting::None => CommandLine::None,
                CommandLineSetting::Masked => CommandLine::Masked,
                CommandLineSetting::Full => CommandLine::Full,
            },
            exclude_interfaces: agent.exclude.interfaces.clone(),
            exclude_devices: agent.exclude.devices.clone(),
            exclude_mounts: agent.exclude.mounts.clone(),
            exclude_metrics: agent.exclude.metrics.clone(),
        }
    }

    /// What the agent is told.
    ///
    /// # Errors
    /// A token whose file can't be read.
    pub fn agent_config(&self) -> Result<AgentConfig, String> {
        let agent = &self.agent_config;
        let token = agent.token.as_ref().map(Secret::read).transpose();
        Ok(AgentConfig {
            hub: agent.hub.clone(),
            token: token.map_err(|why| format!("agent.token: {why}"))?,
            ca: agent.ca.clone(),
            name: agent.name.clone(),
            state: self.data.join("agent"),
            interval: agent.interval.0,
            procfs: agent.procfs.clone(),
            sysfs: agent.sysfs.clone(),
            rootfs: agent.rootfs.clone(),
            disabled_collectors: agent.collectors.disabled.clone(),
            collector_intervals: agent
                .collectors
                .intervals
                .iter()
                .map(|(name, time)| (name.clone(), time.0))
                .collect(),
            options: self.collector_options(),
            max_spool_bytes: agent.spool_max_size.0,
            max_backoff: agent.max_backoff.0,
        })
    }
}

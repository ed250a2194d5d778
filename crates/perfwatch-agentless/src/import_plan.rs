//! Plan of an import: servers of a text as rows, with the errors of its entries. Pure computation without a
//! lock; look-ups take constant time.

use crate::credentials::Credentials;
use crate::import::{self, ImportEntry, ImportError, MAX_ENTRIES};
use crate::import_yaml::parse_yaml;
use crate::server::{Server, Thresholds};
use crate::server_change::ServerEditor;
use crate::server_request::{CredentialsRequest, DependentPasswords, ServerRequest};
use crate::server_table::ServerTable;
use perfwatch_model::HumanDuration;
use perfwatch_store::servers::ServerRow;
use perfwatch_workers::Cancellation;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Maximum size of all credentials of an import: a key is stored with each server.
const MAX_CREDENTIAL_BYTES: usize = 64 << 20;

/// Format of the imported text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ImportFormat {
    /// OpenSSH client configuration (`~/.ssh/config`).
    SshConfig,
    /// CSV with the column `address` and any of `name`, `port`, `user`, `password`, `jump`, `tags`,
    /// `interval`.
    Csv,
    /// YAML: a list of addresses or of mappings with the columns of CSV, or an inventory of Ansible, whose
    /// groups become tags.
    Yaml,
}

/// Text to import, with defaults for all entries.
#[derive(Clone)]
pub struct ImportRequest {
    /// Format of the text.
    pub format: ImportFormat,
    /// Content of the file.
    pub text: String,
    /// User of entries without a user.
    pub user: Option<String>,
    /// Credentials of entries without a password, opened.
    pub credentials: Option<Credentials>,
    /// Tags of all entries, in addition to their own.
    pub tags: Vec<String>,
    /// Interval of entries without an interval.
    pub interval: Option<HumanDuration>,
    /// Collection of the imported servers is enabled.
    pub enabled: bool,
}

/// Checks of the caller, who may be limited to some hosts.
pub trait ImportAccess {
    /// Returns whether a host, which may be without a server, has the name.
    fn is_name_taken(&self, name: &str) -> bool;
    /// Validates tags.
    ///
    /// # Errors
    /// Returns the reason if the tags are invalid or outside of the scope of the caller.
    fn validate_tags(&self, tags: &[String]) -> Result<Vec<String>, String>;
    /// Returns whether the caller may use a stored server as jump host.
    fn can_view(&self, server: Uuid) -> bool;
}

/// Server to create.
pub struct PlannedServer {
    /// Row with encrypted credentials.
    pub row: ServerRow,
    /// Tags of its host.
    pub tags: Vec<String>,
}

/// Entry of the imported text with its result.
pub struct PlannedEntry {
    /// Line number, from 1.
    pub line: usize,
    /// Display name of the server.
    pub name: String,
    /// DNS name or IP address.
    pub address: String,
    /// Reason why the entry is invalid.
    pub error: Option<String>,
    /// A server or host with this name exists and is left unchanged.
    pub exists: bool,
}

/// Servers to create, and the results of all entries in the order of the text.
pub struct ImportPlan {
    /// New servers.
    pub servers: Vec<PlannedServer>,
    /// Results of all entries.
    pub entries: Vec<PlannedEntry>,
    /// Stored jump hosts of the new servers, with their versions.
    jumps: HashMap<Uuid, i64>,
}

/// Maximum number of servers of an import that the audit log lists.
const MAX_AUDITED_SERVERS: usize = 1_000;

impl ImportPlan {
    /// New servers with the addresses that the hub will connect to, for the audit log.
    pub fn audited_servers(&self) -> Vec<String> {
        let servers = self.servers.iter().filter_map(|planned| Server::from_row(&planned.row));
        let text =
            |server: Server| format!("{} ({}@{}:{})", server.name, server.user, server.address, server.port);
        servers.map(text).take(MAX_AUDITED_SERVERS).collect()
    }

    /// Returns whether the plan is valid for the current servers: all names are free, and the jump hosts
    /// are unchanged.
    pub fn is_current(&self, table: &ServerTable) -> bool {
        let is_unchanged =
            |(id, version): (&Uuid, &i64)| table.get(*id).is_some_and(|entry| entry.row.version == *version);
        let names = self.entries.iter().filter(|entry| !entry.exists);
        table.count() + self.servers.len() <= MAX_ENTRIES
            && self.jumps.iter().all(is_unchanged)
            && names.into_iter().all(|entry| table.find_name(&entry.name).is_none())
    }
}

/// Plan in progress.
struct Planner<'a> {
    editor: &'a ServerEditor,
    access: &'a dyn ImportAccess,
    request: &'a ImportRequest,
    /// Stored servers and those of the import.
    table: ServerTable,
    created: HashSet<Uuid>,
}

impl Planner<'_> {
    fn credentials(&self, entry: &ImportEntry) -> Result<Credentials, String> {
        match (&entry.password, &self.request.credentials) {
            (Some(password), _) => Ok(Credentials::Password { password: password.clone() }),
            (None, Some(credentials)) => Ok(credentials.clone()),
            (None, None) => Err("credentials: required".to_owned()),
        }
    }

    fn to_request(&self, entry: &ImportEntry, credentials: &Credentials) -> Result<ServerRequest, String> {
        let port = entry.port.as_ref();
        let port = port.map(|port| port.parse().map_err(|_| format!("port: invalid value {port:?}")));
        let interval = entry.interval.as_ref();
        let interval = interval.map(|text| {
            HumanDuration::parse(text).ok_or_else(|| format!("interval: invalid value {text:?}"))
        });
        let is_usable = |id: &Uuid| self.created.contains(id) || self.access.can_view(*id);
        let jump = entry.jump.as_ref().map(|name| {
            let id = self.table.find_name(name).filter(is_usable);
            id.ok_or_else(|| format!("jump: server {name:?} not found"))
        });
        let user = entry.user.clone().or_else(|| self.request.user.clone());
        Ok(ServerRequest {
            name: entry.name.clone(),
            address: entry.address.clone(),
            port: port.transpose()?.unwrap_or(22),
            user: user.ok_or("user: required")?,
            credentials: match credentials {
                Credentials::Password { password } => {
                    CredentialsRequest::Password { password: Some(password.clone()) }
                }
                // The key is validated.
                Credentials::Key { .. } => CredentialsRequest::Key { key: None, passphrase: None },
            },
            jump: jump.transpose()?,
            tags: entry.tags.iter().chain(&self.request.tags).cloned().collect(),
            interval: interval.transpose()?.or(self.request.interval).unwrap_or(HumanDuration::from_s(900)),
            thresholds: Thresholds::default(),
            enabled: self.request.enabled,
            version: None,
            passwords: DependentPasswords::default(),
        })
    }

    /// Stored servers on the paths of the new servers, with their versions.
    fn stored_jumps(&self) -> HashMap<Uuid, i64> {
        let entries = self.created.iter().filter_map(|id| self.table.get(*id));
        let jumps = entries.flat_map(|entry| self.table.jumps(&entry.server));
        jumps.filter(|row| !self.created.contains(&row.id)).map(|row| (row.id, row.version)).collect()
    }

    fn plan_entry(&mut self, entry: &ImportEntry) -> Result<PlannedServer, String> {
        if let Some(error) = &entry.error {
            return Err(error.clone());
        }
        let credentials = self.credentials(entry)?;
        let request = self.to_request(entry, &credentials)?;
        let server: Server = request.validate().map_err(|error| error.to_string())?;
        let tags = self.access.validate_tags(&request.tags)?;
        if self.table.find_name(&server.name).is_some_and(|id| self.created.contains(&id)) {
            return Err("name: duplicate entry".to_owned());
        }
        let row = ServerRow {
            enabled: request.enabled,
            interval_ms: server.interval.ms(),
            ..ServerRow::new(Uuid::now_v7(), server.to_body(), None)
        };
        let encrypted = self.editor.encrypt(&self.table, &row, &server, &credentials);
        let row =
            ServerRow { encrypted_credentials: Some(encrypted.map_err(|error| error.to_string())?), ..row };
        self.created.insert(row.id);
        self.table.insert(row.clone(), server);
        Ok(PlannedServer { row, tags })
    }
}

/// Parses a text and plans its servers.
///
/// # Errors
/// Returns an [`ImportError`] if the text as a whole cannot be imported.
pub fn plan_import(
    editor: &ServerEditor,
    access: &dyn ImportAccess,
    request: &ImportRequest,
    table: ServerTable,
    cancellation: &Cancellation,
) -> Result<ImportPlan, ImportError> {
    let entries = match request.format {
        ImportFormat::SshConfig => import::parse_ssh_config(&request.text)?,
        ImportFormat::Csv => import::parse_csv(&request.text)?,
        ImportFormat::Yaml => parse_yaml(&request.text)?,
    };
    let credential_bytes = match &request.credentials {
        Some(Credentials::Key { key, .. }) => key.len(),
        _ => 0,
    };
    if table.count() + entries.len() > MAX_ENTRIES {
        return Err(ImportError::TooManyEntries);
    }
    if entries.len().saturating_mul(credential_bytes) > MAX_CREDENTIAL_BYTES {
        return Err(ImportError::KeyTooLarge);
    }
    let existing = table.clone();
    let mut planner = Planner { editor, access, request, table, created: HashSet::new() };
    let (mut servers, mut results) = (Vec::new(), Vec::new());
    // Jump hosts must be planned before the servers behind them.
    let (direct, jumping): (Vec<ImportEntry>, Vec<ImportEntry>) =
        entries.into_iter().partition(|entry| entry.jump.is_none());
    for entry in direct.into_iter().chain(jumping) {
        if cancellation.is_cancelled() {
            break;
        }
        let exists = existing.find_name(&entry.name).is_some() || access.is_name_taken(&entry.name);
        let error =
            if exists { None } else { planner.plan_entry(&entry).map(|server| servers.push(server)).err() };
        let ImportEntry { line, name, address, .. } = entry;
        results.push(PlannedEntry { line, name, address, error, exists });
    }
    results.sort_by_key(|entry| entry.line);
    Ok(ImportPlan { servers, entries: results, jumps: planner.stored_jumps() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_auth::encryption::Keyring;
    use perfwatch_model::SystemClock;
    use perfwatch_model::remote_collector::{CollectRequest, CollectionOutcome, RemoteCollector};
    use perfwatch_workers::{PoolConfig, WorkerPool};
    use secrecy::SecretString;
    use std::fmt::Write as _;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct NoCollector;

    impl RemoteCollector for NoCollector {
        fn collect(&self, _: CollectRequest) -> Pin<Box<dyn Future<Output = CollectionOutcome> + Send + '_>> {
            unreachable!("an import connects to no server")
        }

        fn open_private_key(
            &self,
            _: &SecretString,
            _: Option<&SecretString>,
        ) -> Result<SecretString, String> {
            unreachable!("keys are opened before an import")
        }

        fn close_connection(&self, _: Uuid) {}

        fn open_connections(&self) -> usize {
            0
        }
    }

    #[derive(Default)]
    struct CountingAccess(AtomicUsize);

    impl ImportAccess for CountingAccess {
        fn is_name_taken(&self, name: &str) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed);
            name == "host-7"
        }

        fn validate_tags(&self, tags: &[String]) -> Result<Vec<String>, String> {
            Ok(tags.to_vec())
        }

        fn can_view(&self, _: Uuid) -> bool {
            true
        }
    }

    /// Finding M5: an import compared each entry with all others while it held the lock of logins. A plan
    /// takes its servers by value, without a lock, and looks up each name once.
    #[test]
    fn plan_uses_one_lookup_per_name_without_a_lock() {
        let editor = ServerEditor {
            keyring: Arc::new(Keyring::new(&[[7; 32]])),
            collector: Arc::new(NoCollector),
            workers: Arc::new(WorkerPool::new(Arc::new(SystemClock::new()), PoolConfig { threads: 2 })),
        };
        let count = 2_000;
        let mut text = "name,address,password\n".to_owned();
        for index in 0..count {
            writeln!(text, "host-{index},10.0.{}.{},secret", index / 250, index % 250).unwrap();
        }
        text += "host-9,10.9.9.9,secret\n";
        let request = ImportRequest {
            format: ImportFormat::Csv,
            text,
            user: Some("perfwatch".to_owned()),
            credentials: None,
            tags: Vec::new(),
            interval: None,
            enabled: true,
        };
        let access = CountingAccess::default();
        let cancellation = Cancellation::default();
        let plan = plan_import(&editor, &access, &request, ServerTable::default(), &cancellation).unwrap();
        assert_eq!(access.0.into_inner(), count + 1);
        assert_eq!(plan.servers.len(), count - 1);
        let result = |name: &str| plan.entries.iter().rfind(|entry| entry.name == name).unwrap();
        assert!(result("host-7").exists);
        assert_eq!(result("host-9").error.as_deref(), Some("name: duplicate entry"));
        assert!(plan.is_current(&ServerTable::default()));
    }
}

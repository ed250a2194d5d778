//! Changes of servers that concern their credentials. A password is bound to the path to its server: a
//! change of the path requires the passwords of all servers behind it again, or deletes them.

use crate::credentials::{Credentials, CredentialsError, decrypt_credentials, encrypt_credentials};
use crate::server::{AuthMethod, Server};
use crate::server_request::{DependentPasswords, InvalidServer, ServerRequest};
use crate::server_table::{ServerTable, TableEntry};
use perfwatch_auth::encryption::Keyring;
use perfwatch_model::remote_collector::RemoteCollector;
use perfwatch_store::Transaction;
use perfwatch_store::servers::ServerRow;
use perfwatch_workers::{WorkError, WorkKind, WorkRequest, WorkerPool};
use std::sync::Arc;
use uuid::Uuid;

/// Name of [`FailureCause::CredentialsRequired`] in the store and the API.
///
/// [`FailureCause::CredentialsRequired`]: perfwatch_model::remote_collector::FailureCause
pub const CREDENTIALS_REQUIRED: &str = "credentials_required";

/// Reason why a server cannot be saved.
#[derive(Debug, thiserror::Error)]
pub enum ServerChangeError {
    /// The request violates a rule.
    #[error(transparent)]
    Invalid(#[from] InvalidServer),
    /// Passwords of servers behind the changed server are bound to its former path.
    #[error(
        "the passwords of {} are bound to the path through this server; send them again in passwords, or null \
         to delete them", .0.join(", ")
    )]
    PasswordsRequired(Vec<String>),
    /// The hub has no encryption key.
    #[error("the hub has no encryption key")]
    EncryptionKeyMissing,
    /// The private key could not be opened in time.
    #[error("opening the private key: {0}")]
    Work(#[from] WorkError),
}

/// New credentials of a server behind the changed server.
#[derive(Debug)]
struct DependentChange {
    id: Uuid,
    before: Vec<u8>,
    /// `None` if the password is deleted.
    after: Option<Vec<u8>>,
}

/// Writes of a change, and the servers whose open connections have to be closed.
#[derive(Debug)]
pub struct ServerChange {
    /// Row to store.
    pub row: ServerRow,
    /// Address, port or jump host changed: host key and counters belong to another host.
    pub is_moved: bool,
    dependents: Vec<DependentChange>,
}

impl ServerChange {
    /// Adds the credentials of the servers behind the changed server to a transaction.
    pub fn write_dependents(&self, tx: &mut Transaction) {
        for DependentChange { id, before, after } in &self.dependents {
            match after {
                Some(after) => tx.servers().replace_credentials(*id, before, after),
                None => tx.servers().drop_credentials(*id, before, CREDENTIALS_REQUIRED),
            }
        }
    }

    /// Servers whose credentials changed with the path.
    pub fn dependents(&self) -> impl Iterator<Item = Uuid> {
        self.dependents.iter().map(|change| change.id)
    }
}

/// Plans changes of servers.
#[derive(Clone)]
pub struct ServerEditor {
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) collector: Arc<dyn RemoteCollector>,
    pub(crate) workers: Arc<WorkerPool>,
}

impl ServerEditor {
    /// Opens a private key once, when it is entered, so that connections do not pay for it.
    ///
    /// # Errors
    /// Returns [`ServerChangeError`] if the key is malformed or too expensive, its passphrase is missing or
    /// wrong, or the pool is busy.
    pub async fn open(
        &self,
        principal: &str,
        credentials: Credentials,
    ) -> Result<Credentials, ServerChangeError> {
        let Credentials::Key { key, passphrase } = credentials else { return Ok(credentials) };
        let input_bytes = key.len();
        let request = WorkRequest { kind: WorkKind::PrivateKey, principal, input_bytes };
        let collector = self.collector.clone();
        let open = move |_: &_| {
            let passphrase = passphrase.map(Into::into);
            collector.open_private_key(&key.into(), passphrase.as_ref())
        };
        let opened = self.workers.run(request, open).await?;
        let key = opened.map_err(|reason| InvalidServer { field: "credentials.key".to_owned(), reason })?;
        Ok(Credentials::Key { key: secrecy::ExposeSecret::expose_secret(&key).to_owned(), passphrase: None })
    }

    /// Credentials for a row, encrypted for the path in a table.
    pub(crate) fn encrypt(
        &self,
        table: &ServerTable,
        row: &ServerRow,
        server: &Server,
        credentials: &Credentials,
    ) -> Result<Vec<u8>, ServerChangeError> {
        let path = table.path(row, server).ok_or(ServerChangeError::EncryptionKeyMissing)?;
        encrypt_credentials(&self.keyring, row.id, &server.user, &path, credentials)
            .ok_or(ServerChangeError::EncryptionKeyMissing)
    }

    fn decrypt(&self, table: &ServerTable, entry: &TableEntry) -> Result<Credentials, CredentialsError> {
        let path = table.path(&entry.row, &entry.server).ok_or(CredentialsError::UnreadableServer)?;
        decrypt_credentials(&self.keyring, &entry.row, &path).map(|decrypted| decrypted.credentials)
    }

    /// Stored credentials of a server that may be used for a changed configuration: none if they are
    /// undecryptable, and no password for another path or user.
    fn usable_credentials(&self, table: &ServerTable, id: Uuid, server: &Server) -> Option<Credentials> {
        let entry = table.get(id)?;
        let credentials = self.decrypt(table, entry).ok()?;
        let is_same = !table.is_moved(id, server) && entry.server.user == server.user;
        (is_same || credentials.auth_method() == AuthMethod::Key).then_some(credentials)
    }

    /// Row of an unsaved server with its credentials, for a connection test. Stored credentials are used
    /// only for the stored address, user and jump host.
    ///
    /// # Errors
    /// Returns a [`ServerChangeError`] if the request lacks credentials or they are invalid.
    pub async fn plan_test(
        &self,
        principal: &str,
        table: &ServerTable,
        saved: Option<Uuid>,
        request: &ServerRequest,
    ) -> Result<ServerRow, ServerChangeError> {
        let server = request.validate()?;
        let saved_entry = saved.and_then(|id| table.get(id));
        let is_same =
            |entry: &&TableEntry| !table.is_moved(entry.row.id, &server) && entry.server.user == server.user;
        let same = saved_entry.filter(is_same);
        let stored = same.and_then(|entry| self.decrypt(table, entry).ok());
        let credentials = self.open(principal, request.merge_credentials(stored)?).await?;
        let id = saved_entry.map_or_else(Uuid::now_v7, |entry| entry.row.id);
        let host_key = same.and_then(|entry| entry.row.host_key.clone());
        let row = ServerRow { host_key, ..ServerRow::new(id, server.to_body(), None) };
        let encrypted = self.encrypt(table, &row, &server, &credentials)?;
        Ok(ServerRow { encrypted_credentials: Some(encrypted), ..row })
    }

    /// Row of a new server.
    ///
    /// # Errors
    /// Returns a [`ServerChangeError`] if the request lacks credentials or they are invalid.
    pub async fn plan_create(
        &self,
        principal: &str,
        table: &ServerTable,
        request: &ServerRequest,
    ) -> Result<ServerRow, ServerChangeError> {
        let row = self.plan_test(principal, table, None, request).await?;
        Ok(ServerRow { enabled: request.enabled, interval_ms: request.interval.ms(), ..row })
    }

    /// Change of a stored server.
    ///
    /// # Errors
    /// Returns a [`ServerChangeError`] if credentials of the server, or of a server behind it, are missing
    /// or invalid.
    pub async fn plan_update(
        &self,
        principal: &str,
        mut table: ServerTable,
        before: &ServerRow,
        server: Server,
        request: &ServerRequest,
    ) -> Result<ServerChange, ServerChangeError> {
        let is_moved = table.is_moved(before.id, &server);
        let stored = self.usable_credentials(&table, before.id, &server);
        let credentials = self.open(principal, request.merge_credentials(stored)?).await?;
        let row = ServerRow {
            body: server.to_body(),
            enabled: request.enabled,
            interval_ms: server.interval.ms(),
            host_key: before.host_key.clone().filter(|_| !is_moved),
            ..before.clone()
        };
        let stored = if is_moved { self.dependent_credentials(&table, row.id) } else { Vec::new() };
        table.insert(row.clone(), server.clone());
        let encrypted = Some(self.encrypt(&table, &row, &server, &credentials)?);
        let dependents = self.plan_dependents(&table, stored, &request.passwords)?;
        Ok(ServerChange { row: ServerRow { encrypted_credentials: encrypted, ..row }, is_moved, dependents })
    }

    /// Change of the pinned host key of a server to the key that it offered. Without a password in the
    /// request, the stored password is deleted and the server is blocked.
    ///
    /// # Errors
    /// Returns a [`ServerChangeError`] if passwords of servers behind it are missing.
    pub fn plan_host_key(
        &self,
        mut table: ServerTable,
        before: &ServerRow,
        password: Option<String>,
        passwords: &DependentPasswords,
    ) -> Result<ServerChange, ServerChangeError> {
        let row = ServerRow { host_key: before.offered_host_key.clone(), ..before.clone() };
        let entry = table.get(row.id).cloned().ok_or(ServerChangeError::EncryptionKeyMissing)?;
        let credentials = match (self.decrypt(&table, &entry), entry.server.auth_method) {
            // A key is never sent: it signs for the session.
            (Ok(key @ Credentials::Key { .. }), _) => Some(key),
            (_, AuthMethod::Password) => password.map(|password| Credentials::Password { password }),
            (_, AuthMethod::Key) => None,
        };
        let stored = self.dependent_credentials(&table, row.id);
        table.insert(row.clone(), entry.server.clone());
        let encrypted =
            credentials.map(|credentials| self.encrypt(&table, &row, &entry.server, &credentials));
        let dependents = self.plan_dependents(&table, stored, passwords)?;
        let row = ServerRow { encrypted_credentials: encrypted.transpose()?, ..row };
        Ok(ServerChange { row, is_moved: false, dependents })
    }

    /// Credentials of the servers behind a server, before its change. Credentials that cannot be decrypted
    /// are unchanged.
    fn dependent_credentials(&self, table: &ServerTable, id: Uuid) -> Vec<(Uuid, Credentials)> {
        let decrypt = |id: Uuid| Some((id, self.decrypt(table, table.get(id)?).ok()?));
        table.dependents(id).into_iter().filter_map(decrypt).collect()
    }

    /// Encrypts the credentials of servers behind a changed server for their new path.
    fn plan_dependents(
        &self,
        table: &ServerTable,
        stored: Vec<(Uuid, Credentials)>,
        passwords: &DependentPasswords,
    ) -> Result<Vec<DependentChange>, ServerChangeError> {
        let (mut changes, mut missing) = (Vec::new(), Vec::new());
        for (id, stored) in stored {
            let Some(TableEntry { row, server }) = table.get(id) else { continue };
            let Some(before) = row.encrypted_credentials.clone() else { continue };
            let credentials = match (stored, passwords.get(&id)) {
                (key @ Credentials::Key { .. }, _) => Some(key),
                (Credentials::Password { .. }, Some(Some(password))) => {
                    Some(Credentials::Password { password: password.clone() })
                }
                (Credentials::Password { .. }, Some(None)) => None,
                (Credentials::Password { .. }, None) => {
                    missing.push(server.name.clone());
                    continue;
                }
            };
            let after = credentials.map(|credentials| self.encrypt(table, row, server, &credentials));
            changes.push(DependentChange { id, before, after: after.transpose()? });
        }
        if missing.is_empty() { Ok(changes) } else { Err(ServerChangeError::PasswordsRequired(missing)) }
    }
}

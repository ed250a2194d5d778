//! Resolution of a server to an SSH target: its chain of jump hosts, with decrypted credentials.

use crate::credentials::decrypt_credentials;
use crate::server::Server;
use crate::server_table::MAX_JUMP_HOSTS;
use crate::ssh_path::SshPath;
use crate::types::{ServerVersion, ServerVersions, collection_failure};
use perfwatch_auth::encryption::Keyring;
use perfwatch_model::remote_collector::{CollectionFailure, CollectionStage, FailureCause, SshTarget};
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{Store, StoreError};
use std::sync::Arc;
use uuid::Uuid;

/// Credentials that are bound to host keys which were pinned since they were encrypted.
#[derive(Debug, Clone)]
pub(crate) struct ReboundCredentials {
    pub(crate) server_id: Uuid,
    pub(crate) before: Vec<u8>,
    pub(crate) after: Vec<u8>,
}

/// SSH target, and the versions of the servers on its path.
#[derive(Debug)]
pub(crate) struct ResolvedTarget {
    pub(crate) target: SshTarget,
    pub(crate) versions: ServerVersions,
    /// To store if the collection succeeds: only then the hosts have the pinned keys.
    pub(crate) rebound: Vec<ReboundCredentials>,
}

/// Reason why a collection ended without an outcome of the collector.
#[derive(Debug)]
pub(crate) enum ResolveError {
    /// The collection failed; the failure is recorded.
    Failed(CollectionFailure),
    /// The store failed; nothing is recorded.
    Store(StoreError),
}

impl From<StoreError> for ResolveError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn unreachable(message: impl Into<String>) -> ResolveError {
    ResolveError::Failed(collection_failure(FailureCause::Unreachable, CollectionStage::Connect, message))
}

fn internal(stage: CollectionStage, message: impl Into<String>) -> ResolveError {
    ResolveError::Failed(collection_failure(FailureCause::Internal, stage, message))
}

/// Resolves servers to SSH targets.
pub(crate) struct TargetResolver {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keyring: Arc<Keyring>,
}

impl TargetResolver {
    /// Reads the jump hosts of a server and decrypts the credentials of the whole path.
    pub(crate) async fn resolve(&self, row: &ServerRow) -> Result<ResolvedTarget, ResolveError> {
        let jumps = self.load_jumps(row).await?;
        let (mut jump, mut rebound) = (None, Vec::new());
        for (index, row) in jumps.iter().enumerate().rev() {
            jump = Some(Box::new(self.ssh_target(row, &jumps[index + 1..], jump, &mut rebound)?));
        }
        let target = self.ssh_target(row, &jumps, jump, &mut rebound)?;
        let jumps = jumps.iter().map(ServerVersion::from_row).collect();
        let versions = ServerVersions { jumps, ..ServerVersions::of_target(row) };
        Ok(ResolvedTarget { target, versions, rebound })
    }

    /// Jump hosts of a server, beginning with the adjacent host.
    async fn load_jumps(&self, row: &ServerRow) -> Result<Vec<ServerRow>, ResolveError> {
        let mut jumps: Vec<ServerRow> = Vec::new();
        while let Some(jump) = Server::from_row(jumps.last().unwrap_or(row)).and_then(|server| server.jump) {
            if jumps.len() >= MAX_JUMP_HOSTS || jump == row.id || jumps.iter().any(|row| row.id == jump) {
                return Err(unreachable("jump hosts form a cycle or exceed the limit of three"));
            }
            let Some(next) = ServerRow::get(&*self.store, jump).await? else {
                return Err(unreachable("the jump host was deleted"));
            };
            if next.blocked_reason.is_some() {
                let name = Server::from_row(&next).map(|server| server.name).unwrap_or_default();
                return Err(unreachable(format!("jump host {name} is blocked")));
            }
            jumps.push(next);
        }
        Ok(jumps)
    }

    fn ssh_target(
        &self,
        row: &ServerRow,
        jumps: &[ServerRow],
        jump: Option<Box<SshTarget>>,
        rebound: &mut Vec<ReboundCredentials>,
    ) -> Result<SshTarget, ResolveError> {
        let unreadable = || internal(CollectionStage::Resolve, "server record is unreadable");
        let server = Server::from_row(row).ok_or_else(unreadable)?;
        let path = SshPath::new(row, jumps).ok_or_else(unreadable)?;
        let decrypted = decrypt_credentials(&self.keyring, row, &path).map_err(|error| {
            let message = format!("credentials of {}: {error}", server.name);
            internal(CollectionStage::Authenticate, message)
        })?;
        if let (Some(before), Some(after)) = (row.encrypted_credentials.clone(), decrypted.rebound) {
            rebound.push(ReboundCredentials { server_id: row.id, before, after });
        }
        let credentials = decrypted.credentials;
        Ok(SshTarget {
            server_id: row.id,
            address: server.address,
            port: server.port,
            user: server.user,
            auth: credentials.into_ssh_auth(),
            pinned_host_key: row.host_key.clone(),
            jump,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{Credentials, encrypt_credentials};
    use crate::server::{AuthMethod, Thresholds};
    use crate::server_table::ServerTable;
    use perfwatch_model::{HumanDuration, ManualClock};
    use perfwatch_store::{SqliteOptions, SqliteStore, Transaction};
    use tempfile::TempDir;

    /// Resolver of a store with servers 1, 2, …; each is given its jump host.
    async fn resolver(jumps: &[Option<u128>]) -> (TempDir, TargetResolver) {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions { folder: folder.path().to_owned(), budget_bytes: 64 << 20 };
        let store = SqliteStore::open(&options, Arc::new(ManualClock::starting_at(0))).unwrap();
        let resolver = TargetResolver { store: Arc::new(store), keyring: Arc::new(Keyring::new(&[[1; 32]])) };
        let rows = (1..).zip(jumps).map(|(number, jump)| {
            ServerRow::new(Uuid::from_u128(number), server(number, *jump).to_body(), None)
        });
        let table = ServerTable::new(rows.collect());
        for (number, jump) in (1..).zip(jumps) {
            let (id, server) = (Uuid::from_u128(number), server(number, *jump));
            let credentials = Credentials::Password { password: "secret".to_owned() };
            let row = ServerRow::new(id, server.to_body(), None);
            let path = table.path(&row, &server).unwrap();
            let encrypted = encrypt_credentials(&resolver.keyring, id, &server.user, &path, &credentials);
            let row = ServerRow { encrypted_credentials: encrypted, ..row };
            let tx = Transaction::build(|tx| tx.servers().insert(&row));
            resolver.store.commit(tx).await.unwrap();
        }
        (folder, resolver)
    }

    fn server(number: u128, jump: Option<u128>) -> Server {
        Server {
            name: format!("s{number}"),
            address: format!("192.0.2.{number}"),
            port: 22,
            user: "perfwatch".to_owned(),
            auth_method: AuthMethod::Password,
            jump: jump.map(Uuid::from_u128),
            interval: HumanDuration::from_s(900),
            thresholds: Thresholds::default(),
        }
    }

    async fn resolve(resolver: &TargetResolver, number: u128) -> Result<ResolvedTarget, CollectionFailure> {
        let row = ServerRow::get(&*resolver.store, Uuid::from_u128(number)).await.unwrap().unwrap();
        match resolver.resolve(&row).await {
            Ok(resolved) => Ok(resolved),
            Err(ResolveError::Failed(failure)) => Err(failure),
            Err(ResolveError::Store(error)) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn jump_hosts_are_resolved_up_to_three() {
        let (_folder, resolver) = resolver(&[Some(2), Some(3), Some(4), Some(5), None]).await;
        let ResolvedTarget { target, versions, .. } = resolve(&resolver, 2).await.unwrap();
        let mut addresses = Vec::new();
        let mut next = Some(&target);
        while let Some(target) = next {
            addresses.push(target.address.as_str());
            next = target.jump.as_deref();
        }
        assert_eq!(addresses, ["192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"]);
        let ids: Vec<u128> = versions.iter().map(|version| version.id.as_u128()).collect();
        assert_eq!(ids, [2, 3, 4, 5]);
        let failure = resolve(&resolver, 1).await.unwrap_err();
        assert_eq!(failure.message, "jump hosts form a cycle or exceed the limit of three");
    }

    #[tokio::test]
    async fn unusable_jump_hosts_are_reported() {
        let (_folder, resolver) = resolver(&[Some(2), Some(1), Some(4), None, Some(9)]).await;
        let failure = resolve(&resolver, 1).await.unwrap_err();
        assert_eq!(failure.message, "jump hosts form a cycle or exceed the limit of three");
        let failure = resolve(&resolver, 5).await.unwrap_err();
        assert_eq!(failure.message, "the jump host was deleted");
        assert!(resolve(&resolver, 3).await.is_ok());
        let block =
            |tx: &mut Transaction| tx.servers().block(Uuid::from_u128(4), 1, "authentication_failed", None);
        resolver.store.commit(Transaction::build(block)).await.unwrap();
        let failure = resolve(&resolver, 3).await.unwrap_err();
        assert_eq!(failure.message, "jump host s4 is blocked");
        assert_eq!((failure.cause, failure.stage), (FailureCause::Unreachable, CollectionStage::Connect));
    }
}

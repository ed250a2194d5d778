//! Resolution of a server to an SSH target: its chain of jump hosts, with decrypted credentials.

use crate::credentials::decrypt_credentials;
use crate::server::Server;
use crate::types::{ServerVersion, ServerVersions, collection_failure};
use perfwatch_auth::encryption::Keyring;
use perfwatch_model::remote_collector::{CollectionFailure, CollectionStage, FailureCause, SshTarget};
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{Store, StoreError};
use std::sync::Arc;

/// Maximum number of jump hosts on the path to a server.
const MAX_JUMP_HOSTS: usize = 3;

/// SSH target, and the versions of the servers on its path.
#[derive(Debug)]
pub(crate) struct ResolvedTarget {
    pub(crate) target: SshTarget,
    pub(crate) versions: ServerVersions,
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
        let mut jump = None;
        for row in jumps.iter().rev() {
            jump = Some(Box::new(self.ssh_target(row, jump)?));
        }
        let target = self.ssh_target(row, jump)?;
        let jumps = jumps.iter().map(ServerVersion::from_row).collect();
        Ok(ResolvedTarget { target, versions: ServerVersions { jumps, ..ServerVersions::of_target(row) } })
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

    fn ssh_target(&self, row: &ServerRow, jump: Option<Box<SshTarget>>) -> Result<SshTarget, ResolveError> {
        let Some(server) = Server::from_row(row) else {
            return Err(internal(CollectionStage::Resolve, "server record is unreadable"));
        };
        let credentials = decrypt_credentials(&self.keyring, row).map_err(|error| {
            let message = format!("credentials of {}: {error}", server.name);
            internal(CollectionStage::Authenticate, message)
        })?;
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
    use perfwatch_model::{HumanDuration, ManualClock};
    use perfwatch_store::{SqliteOptions, SqliteStore, Transaction};
    use tempfile::TempDir;
    use uuid::Uuid;

    /// Resolver of a store with servers 1, 2, …; each is given its jump host.
    async fn resolver(jumps: &[Option<u128>]) -> (TempDir, TargetResolver) {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions { folder: folder.path().to_owned(), budget_bytes: 64 << 20 };
        let store = SqliteStore::open(&options, Arc::new(ManualClock::starting_at(0))).unwrap();
        let resolver = TargetResolver { store: Arc::new(store), keyring: Arc::new(Keyring::new(&[[1; 32]])) };
        for (number, jump) in (1..).zip(jumps) {
            let (id, server) = (Uuid::from_u128(number), server(number, *jump));
            let credentials = Credentials::Password { password: "secret".to_owned() };
            let encrypted = encrypt_credentials(&resolver.keyring, id, &server, &credentials);
            let row = ServerRow::new(id, server.to_body(), encrypted);
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
        let ResolvedTarget { target, versions } = resolve(&resolver, 2).await.unwrap();
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

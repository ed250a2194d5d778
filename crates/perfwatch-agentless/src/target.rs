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

    /// Jump hosts of a server, the one next to it first.
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

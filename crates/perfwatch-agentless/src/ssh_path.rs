//! Path to a server: addresses, ports and pinned host keys of the server and its jump hosts. Credentials
//! are encrypted for one path, so that they are sent to no other machine.

use crate::server::Server;
use perfwatch_store::servers::ServerRow;
use serde::Serialize;
use uuid::Uuid;

/// One connection of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SshHop {
    address: String,
    port: u16,
    host_key: Option<String>,
}

/// Path to a server: the server first, then its jump hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshPath {
    hops: Vec<SshHop>,
}

impl SshPath {
    /// Path of a server through its jump hosts, beginning with the adjacent host; `None` if a
    /// configuration is unreadable.
    pub(crate) fn new<'a>(
        row: &'a ServerRow,
        jumps: impl IntoIterator<Item = &'a ServerRow>,
    ) -> Option<Self> {
        let hop = |row: &ServerRow| {
            let Server { address, port, .. } = Server::from_row(row)?;
            Some(SshHop { address, port, host_key: row.host_key.clone() })
        };
        let hops = std::iter::once(row).chain(jumps).map(hop).collect::<Option<_>>()?;
        Some(Self { hops })
    }

    /// Additional authenticated data of credentials for this path.
    pub(crate) fn aad(&self, id: Uuid, user: &str) -> Vec<u8> {
        // Serializing strings and numbers never fails.
        serde_json::to_vec(&("ssh path", id, user, &self.hops)).unwrap_or_default()
    }

    /// The path as of before some of its host keys were pinned at first use. Accepting another key than
    /// the first deletes the passwords of the path.
    pub(crate) fn before_pinning(&self) -> impl Iterator<Item = Self> + '_ {
        let pinned: Vec<usize> =
            (0..self.hops.len()).filter(|at| self.hops[*at].host_key.is_some()).collect();
        (1..1_usize << pinned.len()).map(move |unpinned| {
            let mut path = self.clone();
            for (_, at) in pinned.iter().enumerate().filter(|(bit, _)| unpinned >> bit & 1 == 1) {
                path.hops[*at].host_key = None;
            }
            path
        })
    }
}

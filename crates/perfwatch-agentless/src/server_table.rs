//! All servers of a hub in memory, with their jump hosts: the basis of changes that concern several
//! servers. Look-ups by id and name take constant time.

use crate::server::Server;
use crate::ssh_path::SshPath;
use perfwatch_store::servers::ServerRow;
use perfwatch_store::{Store, StoreError};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Maximum number of jump hosts on the path to a server.
pub(crate) const MAX_JUMP_HOSTS: usize = 3;

/// Server with its row.
#[derive(Debug, Clone)]
pub(crate) struct TableEntry {
    pub(crate) row: ServerRow,
    pub(crate) server: Server,
}

/// Servers by id and name. Unreadable records are absent.
#[derive(Debug, Clone, Default)]
pub struct ServerTable {
    entries: HashMap<Uuid, TableEntry>,
    names: HashMap<String, Uuid>,
}

impl ServerTable {
    /// Reads all servers.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        Ok(Self::new(ServerRow::list(store).await?))
    }

    /// Table of these rows.
    pub fn new(rows: Vec<ServerRow>) -> Self {
        let mut table = Self::default();
        for row in rows {
            if let Some(server) = Server::from_row(&row) {
                table.insert(row, server);
            }
        }
        table
    }

    /// Adds or replaces a server.
    pub(crate) fn insert(&mut self, row: ServerRow, server: Server) {
        if let Some(before) = self.entries.get(&row.id)
            && before.server.name != server.name
        {
            self.names.remove(&before.server.name);
        }
        self.names.insert(server.name.clone(), row.id);
        self.entries.insert(row.id, TableEntry { row, server });
    }

    /// Returns the number of servers.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, id: Uuid) -> Option<&TableEntry> {
        self.entries.get(&id)
    }

    /// Finds the server with a name.
    pub fn find_name(&self, name: &str) -> Option<Uuid> {
        self.names.get(name).copied()
    }

    /// Name of a server.
    pub fn name(&self, id: Uuid) -> Option<&str> {
        self.get(id).map(|entry| entry.server.name.as_str())
    }

    /// Returns whether a configuration leads to another address, port or jump host than the stored one.
    pub fn is_moved(&self, id: Uuid, server: &Server) -> bool {
        self.get(id).is_none_or(|TableEntry { server: saved, .. }| {
            (&saved.address, saved.port, saved.jump) != (&server.address, server.port, server.jump)
        })
    }

    /// Returns whether a configuration logs in as another user or by another method than the stored one.
    pub fn changes_login(&self, id: Uuid, server: &Server) -> bool {
        self.get(id).is_none_or(|TableEntry { server: saved, .. }| {
            (&saved.user, saved.auth_method) != (&server.user, server.auth_method)
        })
    }

    /// Returns whether the jump hosts of a server lead back to the server.
    pub fn has_jump_cycle(&self, id: Uuid, server: &Server) -> bool {
        let (mut next, mut visited) = (server.jump, HashSet::new());
        while let Some(jump) = next {
            if jump == id || !visited.insert(jump) {
                return true;
            }
            next = self.get(jump).and_then(|entry| entry.server.jump);
        }
        false
    }

    /// Jump hosts of a server, beginning with the adjacent host. Ends at a missing server or a cycle.
    pub(crate) fn jumps(&self, server: &Server) -> Vec<&ServerRow> {
        let (mut next, mut jumps) = (server.jump, Vec::new());
        // One more than allowed, so that a path that is too long differs from its beginning.
        while let Some(entry) = next.and_then(|id| self.get(id)).filter(|_| jumps.len() <= MAX_JUMP_HOSTS) {
            jumps.push(&entry.row);
            next = entry.server.jump;
        }
        jumps
    }

    /// Path to a server, which may be unsaved.
    pub(crate) fn path(&self, row: &ServerRow, server: &Server) -> Option<SshPath> {
        SshPath::new(row, self.jumps(server))
    }

    /// Servers whose path leads through a server that is not visible.
    pub fn hidden_paths(&self, is_visible: impl Fn(Uuid) -> bool) -> HashSet<Uuid> {
        let is_hidden = |entry: &&TableEntry| {
            entry.server.jump.is_some_and(|jump| !is_visible(jump))
                || self.jumps(&entry.server).iter().any(|jump| !is_visible(jump.id))
        };
        self.entries.values().filter(is_hidden).map(|entry| entry.row.id).collect()
    }

    /// Servers whose path leads through a server, at any distance.
    pub fn dependents(&self, id: Uuid) -> Vec<Uuid> {
        let mut by_jump: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
        for entry in self.entries.values() {
            if let Some(jump) = entry.server.jump {
                by_jump.entry(jump).or_default().push(entry.row.id);
            }
        }
        let (mut found, mut seen, mut open) = (Vec::new(), HashSet::from([id]), vec![id]);
        while let Some(jump) = open.pop() {
            for dependent in by_jump.remove(&jump).unwrap_or_default() {
                if seen.insert(dependent) {
                    found.push(dependent);
                    open.push(dependent);
                }
            }
        }
        found.sort();
        found
    }
}

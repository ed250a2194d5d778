//! Open WebSocket connections with what each receives.

use crate::response::{ConnectionListResponse, ConnectionResponse};
use perfwatch_model::limits;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Client of a WebSocket connection.
#[derive(Debug, Clone)]
pub struct LiveClient {
    /// Actor of the connection, such as `user vera`.
    pub actor: String,
    /// Address of the client.
    pub address: String,
    /// Time of the connection, Unix milliseconds.
    pub since_ms: i64,
}

/// Counters of a connection.
pub(crate) struct LiveConnection {
    client: LiveClient,
    pub(crate) messages: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) dropped: AtomicU64,
    /// Number of selected hosts plus one; 0 for all hosts.
    pub(crate) hosts: AtomicU64,
}

/// Open connections. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct LiveConnections(Arc<Mutex<HashMap<u64, Arc<LiveConnection>>>>);

impl LiveConnections {
    /// Adds a connection under an unused number.
    pub(crate) fn open(&self, number: u64, client: LiveClient) -> Arc<LiveConnection> {
        let connection = Arc::new(LiveConnection {
            client,
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            hosts: AtomicU64::new(0),
        });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, connection.clone());
        connection
    }

    pub(crate) fn close(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Oldest connections first, at most `limit`.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub(crate) fn list(&self, now_ms: i64, limit: usize) -> ConnectionListResponse {
        let open: Vec<Arc<LiveConnection>> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let total = open.len();
        let mut connections: Vec<ConnectionResponse> = open
            .into_iter()
            .map(|connection| {
                let messages = connection.messages.load(Ordering::Relaxed);
                let seconds = (now_ms - connection.client.since_ms).max(1_000) as f64 / 1_000.0;
                ConnectionResponse {
                    actor: connection.client.actor.clone(),
                    address: connection.client.address.clone(),
                    since_ms: connection.client.since_ms,
                    hosts: connection.hosts.load(Ordering::Relaxed).checked_sub(1),
                    messages,
                    messages_per_second: messages as f64 / seconds,
                    bytes: connection.bytes.load(Ordering::Relaxed),
                    dropped: connection.dropped.load(Ordering::Relaxed),
                }
            })
            .collect();
        connections.sort_by(|a, b| a.since_ms.cmp(&b.since_ms).then_with(|| a.address.cmp(&b.address)));
        connections.truncate(limit);
        ConnectionListResponse { total, max: limits::MAX_WEBSOCKET_CLIENTS, connections }
    }
}

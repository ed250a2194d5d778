//! Rows of a host from the recent window, which are decoded when they are read.

use super::published::PublishedSnapshot;
use perfwatch_model::{HostId, limits};
use perfwatch_tsdb::{EncodedRow, decode_rows};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Size of decoded rows up to which they are decoded at once: about 200 rows of a usual host.
const MAX_DECODED_AT_ONCE_BYTES: usize = 1 << 20;
/// Unit of the permits of [`DecodeMemory`].
const PERMIT_BYTES: usize = 1 << 10;

/// Rows of a host, oldest first; at least one.
pub struct RecentRows {
    pub(crate) host: HostId,
    pub(crate) rows: Vec<EncodedRow>,
    /// Snapshot of the last row, with its encodings.
    pub(crate) newest: Arc<PublishedSnapshot>,
    /// Approximate size of the decoded rows.
    pub(crate) decoded_bytes: usize,
}

impl RecentRows {
    /// Decodes the rows on this thread. Serving threads decode few rows only; see [`LiveFeed::recent`](crate::LiveFeed).
    pub fn decode(self) -> Vec<Arc<PublishedSnapshot>> {
        let Self { host, mut rows, newest, .. } = self;
        rows.pop();
        let publish =
            |snapshot| Arc::new(PublishedSnapshot::new(host, newest.name.clone(), snapshot, Duration::ZERO));
        let mut snapshots: Vec<_> = decode_rows(&rows).into_iter().map(publish).collect();
        snapshots.push(newest);
        snapshots
    }
}

/// Memory for decoded rows of large hosts, shared by all reads.
pub(crate) struct DecodeMemory(Arc<Semaphore>);

/// Snapshots of a host in the recent window, oldest first. Those of a large host hold their part of the memory until
/// they are dropped.
#[derive(Default)]
pub struct RecentSnapshots {
    /// Snapshots, oldest first.
    pub snapshots: Vec<Arc<PublishedSnapshot>>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Default for DecodeMemory {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::MAX_DECODED_RECENT_BYTES / PERMIT_BYTES)))
    }
}

impl DecodeMemory {
    /// Decodes rows; those of a large host off the serving threads, when there is memory for them.
    pub(crate) async fn decode(&self, rows: RecentRows) -> RecentSnapshots {
        if rows.decoded_bytes <= MAX_DECODED_AT_ONCE_BYTES {
            return RecentSnapshots { snapshots: rows.decode(), _memory: None };
        }
        let permits = rows.decoded_bytes.min(limits::MAX_DECODED_RECENT_BYTES) / PERMIT_BYTES;
        // The semaphore is never closed.
        let memory = self.0.clone().acquire_many_owned(u32::try_from(permits).unwrap_or(u32::MAX)).await.ok();
        let decoded = tokio::task::spawn_blocking(move || rows.decode()).await;
        // An error is the end of the runtime.
        RecentSnapshots { snapshots: decoded.unwrap_or_default(), _memory: memory }
    }
}

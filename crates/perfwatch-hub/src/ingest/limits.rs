//! Memory limits of ingest requests.

use perfwatch_model::limits;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Permits that bound the memory of all ingest requests together.
pub(crate) struct IngestLimits {
    /// Number of requests that are decompressed concurrently.
    pub(super) decompressions: Semaphore,
    /// Size of the decompressed bodies until their snapshots are stored, in KiB.
    pub(super) decoded_kib: Arc<Semaphore>,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self {
            decompressions: Semaphore::new(limits::MAX_CONCURRENT_DECOMPRESSIONS),
            decoded_kib: Arc::new(Semaphore::new(limits::MAX_DECODED_BYTES >> 10)),
        }
    }
}

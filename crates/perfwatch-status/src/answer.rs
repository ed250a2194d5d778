//! Encoded answers that visitors share.

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Encoded answer to visitors.
#[derive(Debug, Clone)]
pub struct PublicAnswer {
    /// Page as JSON.
    pub json: Bytes,
    /// Entity tag of the JSON.
    pub etag: String,
}

/// Answer of a page that is computed by at most one request at a time.
pub(crate) type PageCache = Arc<tokio::sync::Mutex<Option<SharedAnswer>>>;

/// Answer that visitors share for a time.
pub(crate) struct SharedAnswer {
    pub(crate) at: Duration,
    pub(crate) ttl: Duration,
    /// Revision of access data and time of the last change of the page.
    pub(crate) version: (i64, i64),
    pub(crate) answer: PublicAnswer,
}

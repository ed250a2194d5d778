//! Memory of ingest requests: bodies that are being received, decompression, and decoded snapshots.
//!
//! Each sender has a share, so that a sender with large, slow or deeply nested bodies delays or loses only its
//! own requests. Memory is reserved before it is used: before a body is read, and before it is decoded.

use crate::body_memory::{BodyMemory, BodySender, ReadError, Reservation, refuse};
use crate::error::ApiError;
use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;
use perfwatch_auth::identity::{Identity, Principal};
use perfwatch_model::{limit_table, limits};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Number of known senders above which those without requests are dropped.
const MAX_IDLE_SENDERS: usize = 1_024;

/// Sender of ingest requests, with its shares.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    id: BodySender,
    /// Maximum size of the bodies that are being received.
    receiving_bytes: usize,
    /// Maximum size of the decoded snapshots, in KiB.
    decoded_kib: u32,
}

impl Sender {
    /// Sender of an authenticated request. An agent sends for a single host; a token or an account may send for many.
    pub fn new(identity: &Identity) -> Self {
        let id = BodySender::of_identity(identity);
        let is_single = matches!(identity.principal, Principal::Agent { .. });
        let (receiving_bytes, decoded_bytes) = match is_single {
            true => (limits::MAX_RECEIVING_BYTES_PER_AGENT, limits::MAX_DECODED_BYTES_PER_AGENT),
            false => (limits::MAX_RECEIVING_BYTES_PER_ACCOUNT, limits::MAX_DECODED_BYTES_PER_ACCOUNT),
        };
        Self { id, receiving_bytes, decoded_kib: to_kib(decoded_bytes) }
    }
}

fn to_kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX)
}

/// Memory of all ingest requests.
pub struct IngestMemory {
    receiving: BodyMemory,
    decompressions: Semaphore,
    decoded: Arc<Semaphore>,
    shares: Mutex<HashMap<BodySender, Arc<Semaphore>>>,
}

impl Default for IngestMemory {
    fn default() -> Self {
        Self {
            receiving: BodyMemory::new(
                limits::MAX_RECEIVING_BYTES,
                &limit_table::RECEIVING_SHARE,
                &limit_table::RECEIVING_BYTES,
            ),
            decompressions: Semaphore::new(limits::MAX_CONCURRENT_DECOMPRESSIONS),
            decoded: Arc::new(Semaphore::new(to_kib(limits::MAX_DECODED_BYTES) as usize)),
            shares: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Body as received. Its memory is reserved until it is dropped.
pub struct ReceivedBody {
    /// Compressed or plain content.
    pub bytes: Bytes,
    _reservation: Reservation,
}

/// Share of a request in the memory of decoded snapshots.
pub struct DecodedPermit {
    _own: OwnedSemaphorePermit,
    _total: OwnedSemaphorePermit,
}

/// Share of a request in what its sender may decode.
pub struct SenderPermit {
    own: OwnedSemaphorePermit,
    share: Arc<Semaphore>,
    share_kib: u32,
}

fn shutting_down<E>(_: E) -> ApiError {
    ApiError::unavailable("shutting_down", "hub is shutting down", 5)
}

fn body_too_large() -> ApiError {
    limit_table::BODY_BYTES.refuse();
    ApiError::too_large("body_too_large", format!("body exceeds {} bytes", limits::MAX_BODY_BYTES))
}

impl IngestMemory {
    /// Reads a body. Its memory is reserved before it is read, or, if its length is not known, as it grows.
    ///
    /// # Errors
    /// Returns `body_too_large` above the limit of a body, `too_many_requests` above the share of the sender,
    /// and `body_truncated` if the connection ends early.
    pub async fn receive(
        &self,
        sender: Sender,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<ReceivedBody, ApiError> {
        let share = (sender.id, sender.receiving_bytes);
        let body = self.receiving.read(share, headers, body, limits::MAX_BODY_BYTES).await;
        let (bytes, reservation) = body.map_err(|error| match error {
            ReadError::TooLarge => body_too_large(),
            ReadError::Truncated => ApiError::bad_request("body_truncated", "body is truncated"),
            ReadError::Refused(error) => error,
        })?;
        Ok(ReceivedBody { bytes, _reservation: reservation })
    }

    /// Waits until the sender may decode this many bytes. Waiting requests hold no memory of others.
    ///
    /// # Errors
    /// Returns `shutting_down` while the hub stops.
    pub async fn acquire_share(&self, sender: Sender, bytes: usize) -> Result<SenderPermit, ApiError> {
        let share = {
            let mut shares = lock(&self.shares);
            if shares.len() > MAX_IDLE_SENDERS {
                shares.retain(|_, share| Arc::strong_count(share) > 1);
            }
            let new = || Arc::new(Semaphore::new(sender.decoded_kib as usize));
            shares.entry(sender.id).or_insert_with(new).clone()
        };
        let kib = to_kib(bytes).clamp(1, sender.decoded_kib);
        let own = share.clone().acquire_many_owned(kib).await.map_err(shutting_down)?;
        Ok(SenderPermit { own, share, share_kib: sender.decoded_kib })
    }

    /// Waits for one of the concurrent decompressions. No other permit is awaited while it is held.
    ///
    /// # Errors
    /// Returns `shutting_down` while the hub stops.
    pub async fn decompression(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.decompressions.acquire().await.map_err(shutting_down)
    }

    /// Waits for the memory of the decoded snapshots of a request.
    ///
    /// # Errors
    /// Returns `decoded_too_large` above the limit of a request, and `too_many_requests` if other requests of
    /// the sender take the rest of its share.
    pub async fn acquire_decoded(
        &self,
        mut permit: SenderPermit,
        bytes: usize,
    ) -> Result<DecodedPermit, ApiError> {
        if bytes > limits::MAX_DECODED_REQUEST_BYTES {
            limit_table::DECODED_REQUEST.refuse();
            let message =
                format!("body takes more than {} bytes of memory", limits::MAX_DECODED_REQUEST_BYTES);
            return Err(ApiError::too_large("decoded_too_large", message));
        }
        let kib = to_kib(bytes).clamp(1, permit.share_kib);
        let held = u32::try_from(permit.own.num_permits()).unwrap_or(u32::MAX);
        if kib > held {
            // Waiting would hold a decompressed body, and could wait for requests that wait as well.
            let more = permit.share.clone().try_acquire_many_owned(kib - held);
            permit.own.merge(more.map_err(|_| refuse(&limit_table::DECODED_SHARE))?);
        } else {
            drop(permit.own.split((held - kib) as usize));
        }
        let total = self.decoded.clone().acquire_many_owned(kib).await.map_err(shutting_down)?;
        Ok(DecodedPermit { _own: permit.own, _total: total })
    }
}

#[cfg(test)]
#[path = "ingest_memory_tests.rs"]
mod tests;

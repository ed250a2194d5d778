//! Memory of request bodies that are being received.
//!
//! The memory of a body is reserved before it is read, with a share per principal: unfinished bodies of a
//! client do not take the memory of others.

use crate::error::ApiError;
use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use hyper::body::Frame;
use perfwatch_auth::identity::{Identity, Principal};
use perfwatch_model::limit_table::Limit;
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Growth of the reservation of a body whose length is not known, and size up to which a client is served
/// although other clients use up the memory.
const RESERVATION_BYTES: usize = 64 << 10;
/// Time after which a refused client sends again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Account, agent or address that sends bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum BodySender {
    /// Account, with its sessions and tokens, or agent.
    Principal(uuid::Uuid),
    /// Address of anonymous requests.
    Address(IpAddr),
}

impl BodySender {
    /// Sender of an authenticated request.
    pub(crate) fn of_identity(identity: &Identity) -> Self {
        Self::Principal(match &identity.principal {
            Principal::Account { id, .. }
            | Principal::Token { account: id, .. }
            | Principal::Agent { id, .. } => *id,
            Principal::EmbeddedAgent => uuid::Uuid::nil(),
        })
    }
}

/// Memory of bodies, with its limits.
pub(crate) struct BodyMemory {
    received: Arc<Mutex<ReceivedBytes>>,
    total_bytes: usize,
    share_limit: &'static Limit,
    total_limit: &'static Limit,
}

/// Reserved bytes.
#[derive(Default)]
struct ReceivedBytes {
    by_sender: HashMap<BodySender, usize>,
    total: usize,
}

/// Reserved bytes of a body; released when dropped.
pub(crate) struct Reservation {
    received: Arc<Mutex<ReceivedBytes>>,
    sender: BodySender,
    bytes: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses a request of a sender above its share.
pub(crate) fn refuse(limit: &Limit) -> ApiError {
    limit.refuse();
    ApiError::too_many(format!("too many request bodies at once (limit `{}`)", limit.name), RETRY_DELAY)
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut received = lock(&self.received);
        received.total -= self.bytes;
        let used = received.by_sender.get(&self.sender).copied().unwrap_or_default() - self.bytes;
        match used {
            0 => drop(received.by_sender.remove(&self.sender)),
            _ => drop(received.by_sender.insert(self.sender, used)),
        }
    }
}

/// Body with its reservation.
pub(crate) type ReservedBody = (Bytes, Reservation);

/// Reason why a body could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The body exceeds its limit.
    TooLarge,
    /// The connection ended early.
    Truncated,
    /// The client is above its share.
    Refused(ApiError),
}

async fn next_frame(body: &mut Body) -> Option<Result<Frame<Bytes>, axum::Error>> {
    std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

impl BodyMemory {
    /// Memory of `total_bytes` for all bodies.
    pub(crate) fn new(total_bytes: usize, share_limit: &'static Limit, total_limit: &'static Limit) -> Self {
        Self { received: Arc::default(), total_bytes, share_limit, total_limit }
    }

    /// Reserves more bytes for a body.
    ///
    /// # Errors
    /// Returns `too_many_requests` above the share of the sender, and above what is left for others.
    fn grow(&self, reservation: &mut Reservation, bytes: usize, share_bytes: usize) -> Result<(), ApiError> {
        let mut received = lock(&self.received);
        let free = self.total_bytes.saturating_sub(received.total);
        let total = received.total + bytes;
        let after = received.by_sender.get(&reservation.sender).copied().unwrap_or_default() + bytes;
        if after > share_bytes {
            return Err(refuse(self.share_limit));
        }
        // A sender may take as much as is left for others: many greedy senders get equal parts. A small body
        // is always accepted, up to twice the total.
        let is_small = after <= RESERVATION_BYTES && total <= 2 * self.total_bytes;
        if after > free && !is_small {
            return Err(refuse(self.total_limit));
        }
        if after > 0 {
            received.by_sender.insert(reservation.sender, after);
        }
        received.total = total;
        reservation.bytes += bytes;
        Ok(())
    }

    /// Reserves the memory of a body.
    pub(crate) fn reserve(
        &self,
        sender: BodySender,
        bytes: usize,
        share_bytes: usize,
    ) -> Result<Reservation, ApiError> {
        let mut reservation = Reservation { received: self.received.clone(), sender, bytes: 0 };
        self.grow(&mut reservation, bytes, share_bytes)?;
        Ok(reservation)
    }

    /// Reads a body of at most `max_bytes`. Its memory is reserved before it is read, or, if its length is not
    /// known, as it grows. A refused body is read without keeping it: a client that is still sending would not
    /// receive the response.
    pub(crate) async fn read(
        &self,
        share: (BodySender, usize),
        headers: &HeaderMap,
        mut body: Body,
        max_bytes: usize,
    ) -> Result<ReservedBody, ReadError> {
        let result = self.read_reserved(share, headers, &mut body, max_bytes).await;
        if matches!(result, Err(ReadError::TooLarge | ReadError::Refused(_))) {
            let mut discarded = 0;
            while let Some(Ok(frame)) = next_frame(&mut body).await
                && discarded < 2 * max_bytes
            {
                discarded += frame.data_ref().map_or(0, Bytes::len);
            }
        }
        result
    }

    async fn read_reserved(
        &self,
        (sender, share_bytes): (BodySender, usize),
        headers: &HeaderMap,
        body: &mut Body,
        max_bytes: usize,
    ) -> Result<ReservedBody, ReadError> {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let length: usize = length.unwrap_or_default();
        if length > max_bytes {
            return Err(ReadError::TooLarge);
        }
        let mut reservation = self.reserve(sender, length, share_bytes).map_err(ReadError::Refused)?;
        let mut bytes = Vec::with_capacity(length);
        while let Some(frame) = next_frame(body).await {
            let Ok(data) = frame.map_err(|_| ReadError::Truncated)?.into_data() else { continue };
            let size = bytes.len() + data.len();
            if size > max_bytes {
                return Err(ReadError::TooLarge);
            }
            if size > reservation.bytes {
                let more = (size - reservation.bytes).max(RESERVATION_BYTES);
                self.grow(&mut reservation, more, share_bytes).map_err(ReadError::Refused)?;
            }
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.into(), reservation))
    }

    /// Reserved bytes and number of senders.
    #[cfg(test)]
    pub(crate) fn reserved(&self) -> (usize, usize) {
        let received = lock(&self.received);
        (received.total, received.by_sender.len())
    }
}

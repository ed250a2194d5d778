//! Deliveries in progress: a channel is served by a single delivery at a time.

use perfwatch_store::TaskLease;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Mark of a channel that is being served; removed on drop.
pub(crate) struct InFlightGuard {
    in_flight: Arc<Mutex<HashSet<Uuid>>>,
    channel: Uuid,
}

impl InFlightGuard {
    /// Marks a channel; `None` if the channel is being served already.
    pub(crate) fn try_acquire(in_flight: &Arc<Mutex<HashSet<Uuid>>>, channel: Uuid) -> Option<Self> {
        let is_free = in_flight.lock().unwrap_or_else(PoisonError::into_inner).insert(channel);
        is_free.then(|| Self { in_flight: in_flight.clone(), channel })
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.channel);
    }
}

/// Right of this hub to deliver, as of the time at which it read what is due.
pub(crate) struct DeliveryRound {
    pub(crate) lease: TaskLease,
    pub(crate) stop: CancellationToken,
}

//! Shares of accounts in the live stream: sockets, subscriptions, selections, encodings and unsent messages.
//! An account above its share is refused alone.

use perfwatch_model::limit_table::{self, Limit};
use perfwatch_model::limits;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Resource of an account in the live stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveResource {
    /// Open WebSockets.
    Sockets,
    /// Different selections that the account requested first.
    Selections,
    /// Memory of subscriptions in bytes.
    Subscriptions,
    /// Memory of cached encodings in bytes.
    Encodings,
    /// Memory of messages that clients did not receive yet, in bytes.
    Unsent,
    /// Agentless hosts that are polled because the account has their page open.
    PolledHosts,
}

impl LiveResource {
    const KINDS_LEN: usize = 6;

    fn max(self) -> usize {
        match self {
            Self::Sockets => limits::MAX_WEBSOCKETS_PER_ACCOUNT,
            Self::Selections => limits::MAX_SELECTIONS_PER_ACCOUNT,
            Self::Subscriptions => limits::MAX_SUBSCRIPTION_BYTES_PER_ACCOUNT,
            Self::Encodings => limits::MAX_ENCODING_BYTES_PER_ACCOUNT,
            Self::Unsent => limits::MAX_UNSENT_BYTES_PER_ACCOUNT,
            Self::PolledHosts => limits::MAX_POLLED_HOSTS_PER_ACCOUNT,
        }
    }

    fn limit(self) -> &'static Limit {
        match self {
            Self::Sockets => &limit_table::WEBSOCKETS_PER_ACCOUNT,
            Self::Selections => &limit_table::SELECTIONS_PER_ACCOUNT,
            Self::Subscriptions => &limit_table::SUBSCRIPTION_MEMORY,
            Self::Encodings => &limit_table::ENCODING_MEMORY,
            Self::Unsent => &limit_table::UNSENT_MESSAGES,
            Self::PolledHosts => &limit_table::POLLED_HOSTS_PER_ACCOUNT,
        }
    }
}

/// Use of the live stream by one account.
#[derive(Debug, Default)]
pub struct ClientShare {
    used: [AtomicUsize; LiveResource::KINDS_LEN],
    pace: Mutex<MessagePace>,
}

/// Work for messages of clients that is not paid back yet.
#[derive(Debug, Default)]
struct MessagePace {
    units: f64,
    /// Monotonic time of the last message.
    updated: Duration,
}

impl MessagePace {
    const UNITS_PER_SECOND: f64 = limits::MAX_CLIENT_MESSAGE_UNITS_PER_SECOND as f64;

    /// Takes units of work. Returns how long the client waits first.
    fn charge(&mut self, units: f64, now: Duration) -> Duration {
        self.units = self.unpaid(now) + units;
        self.updated = self.updated.max(now);
        let excess = self.units - f64::from(limits::MAX_CLIENT_MESSAGE_UNITS);
        Duration::from_secs_f64((excess / Self::UNITS_PER_SECOND).max(0.0))
    }

    /// Units that are not paid back.
    fn unpaid(&self, now: Duration) -> f64 {
        let elapsed = now.saturating_sub(self.updated).as_secs_f64();
        (self.units - elapsed * Self::UNITS_PER_SECOND).max(0.0)
    }
}

/// Part of a share, which is free again when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    share: Arc<ClientShare>,
    resource: LiveResource,
    amount: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.share.used[self.resource as usize].fetch_sub(self.amount, Ordering::Relaxed);
    }
}

impl ClientShare {
    /// Reserves an amount of a resource; `None`, and a counted refusal, above the share of the account.
    pub fn reserve(self: &Arc<Self>, resource: LiveResource, amount: usize) -> Option<Reservation> {
        let used = &self.used[resource as usize];
        let before = used.fetch_add(amount, Ordering::Relaxed);
        let reservation = Reservation { share: self.clone(), resource, amount };
        if before.saturating_add(amount) > resource.max() {
            resource.limit().refuse();
            return None;
        }
        Some(reservation)
    }

    /// Takes the work for a message of a client, with a backfill of this many hosts. Returns how long the client
    /// waits until its next message is read.
    #[expect(clippy::cast_precision_loss, reason = "numbers of hosts are far below 2^52")]
    pub fn pace_message(&self, backfilled_hosts: usize, now: Duration) -> Duration {
        let units = 1.0 + backfilled_hosts as f64 / limits::MAX_HOSTS_PER_MESSAGE_UNIT as f64;
        let delay = self.pace.lock().unwrap_or_else(PoisonError::into_inner).charge(units, now);
        if !delay.is_zero() {
            limit_table::CLIENT_MESSAGES.refuse();
        }
        delay
    }

    /// Returns whether the account would get the same share if it were created again.
    fn is_unused(self: &Arc<Self>, now: Duration) -> bool {
        let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::strong_count(self) == 1 && pace.unpaid(now) <= 0.0
    }

    /// Used amount of a resource.
    #[cfg(test)]
    pub(crate) fn used(&self, resource: LiveResource) -> usize {
        self.used[resource as usize].load(Ordering::Relaxed)
    }
}

/// Shares of all accounts with clients, or with work that is not paid back: an account that closes its last socket
/// is not faster with the next.
#[derive(Debug, Default)]
pub struct ClientShares(Mutex<HashMap<String, Arc<ClientShare>>>);

impl ClientShares {
    /// Share of a principal.
    pub fn get(&self, principal: String) -> Arc<ClientShare> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(principal).or_default().clone()
    }

    /// Removes shares without clients.
    pub(crate) fn prune(&self, now: Duration) {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| !share.is_unused(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sibling of finding M1: one client kept a serving thread busy with messages.
    #[test]
    fn messages_of_an_account_are_paced() {
        let shares = ClientShares::default();
        let (one, other) = (shares.get("one".into()), shares.get("other".into()));
        let second = Duration::from_secs(1);
        for _ in 0..limits::MAX_CLIENT_MESSAGE_UNITS {
            assert_eq!(one.pace_message(0, second), Duration::ZERO);
        }
        // All clients of the account wait, each for its message.
        assert_eq!(one.pace_message(0, second), Duration::from_millis(5));
        assert_eq!(one.pace_message(4_500, second), Duration::from_millis(55));
        assert_eq!(other.pace_message(4_500, second), Duration::ZERO);
        assert_eq!(one.pace_message(0, 2 * second), Duration::ZERO);
    }

    /// Review of the shares: the pace of an account started again when it closed its last socket.
    #[test]
    fn pace_outlives_the_clients_of_an_account() {
        let shares = ClientShares::default();
        let second = Duration::from_secs(1);
        for _ in 0..limits::MAX_CLIENT_MESSAGE_UNITS {
            assert_eq!(shares.get("one".into()).pace_message(0, second), Duration::ZERO);
            shares.prune(second);
        }
        assert_eq!(shares.get("one".into()).pace_message(0, second), Duration::from_millis(5));
        // 4,001 units are paid back after 20.005 s.
        shares.prune(21 * second);
        assert_eq!(shares.0.lock().unwrap().len(), 1);
        shares.prune(22 * second);
        assert_eq!(shares.0.lock().unwrap().len(), 0);
    }

    /// Finding M1: an account above its share is refused alone, and may use what it released.
    #[test]
    fn shares_are_bounded_per_account_and_released() {
        let shares = ClientShares::default();
        let (one, other) = (shares.get("one".into()), shares.get("other".into()));
        let sockets: Vec<Reservation> =
            std::iter::from_fn(|| one.reserve(LiveResource::Sockets, 1)).collect();
        assert_eq!(sockets.len(), limits::MAX_WEBSOCKETS_PER_ACCOUNT);
        assert!(shares.get("one".into()).reserve(LiveResource::Sockets, 1).is_none());
        assert!(other.reserve(LiveResource::Sockets, 1).is_some());
        assert!(one.reserve(LiveResource::Unsent, limits::MAX_UNSENT_BYTES_PER_ACCOUNT + 1).is_none());
        drop(sockets);
        assert_eq!((one.used(LiveResource::Sockets), one.used(LiveResource::Unsent)), (0, 0));
        drop(one);
        shares.prune(Duration::ZERO);
        assert_eq!(shares.0.lock().unwrap().len(), 1);
    }
}

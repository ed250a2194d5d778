//! Queues of the live clients. A snapshot enters the queues of the clients that receive its host, and wakes only them:
//! a page of one host sleeps while the rest of the fleet reports.

use crate::published::PublishedSnapshot;
use perfwatch_model::{HostId, limits};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use tokio::sync::Notify;

/// Queues of all clients. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Receivers(Arc<RwLock<Queues>>);

/// Queues by what they receive; a queue is in `of_all_hosts` or in the lists of its hosts.
#[derive(Default)]
struct Queues {
    of_all_hosts: Vec<Arc<Queue>>,
    by_host: HashMap<HostId, Vec<Arc<Queue>>>,
}

/// Hosts whose snapshots a client receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceivedHosts {
    /// All hosts.
    All,
    /// These hosts.
    Some(HashSet<HostId>),
}

/// Snapshots for a client, in the order in which they were published.
#[derive(Default)]
struct Queue {
    content: Mutex<QueueContent>,
    /// Notifies when the queue is not empty any more.
    filled: Notify,
}

#[derive(Default)]
struct QueueContent {
    snapshots: VecDeque<Arc<PublishedSnapshot>>,
    capacity: usize,
    /// Snapshots that were dropped because the queue was full.
    dropped: u64,
}

/// The client was too slow: number of snapshots that it does not receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged(pub u64);

/// Receiver of a client until it is dropped.
pub struct LiveReceiver {
    receivers: Receivers,
    queue: Arc<Queue>,
    hosts: ReceivedHosts,
}

/// Snapshots that are queued before the client counts as too slow. Queues are the only ones that keep a snapshot in
/// decoded form, so that a client has room for some of each of its hosts.
fn capacity(hosts: &ReceivedHosts) -> usize {
    match hosts {
        ReceivedHosts::All => limits::MAX_QUEUED_SNAPSHOTS,
        ReceivedHosts::Some(hosts) => {
            (hosts.len() * limits::MAX_QUEUED_SNAPSHOTS_PER_HOST).min(limits::MAX_QUEUED_SNAPSHOTS)
        }
    }
}

impl Queue {
    fn content(&self) -> MutexGuard<'_, QueueContent> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, published: Arc<PublishedSnapshot>) {
        let mut content = self.content();
        if content.snapshots.len() >= content.capacity {
            content.dropped += content.snapshots.len() as u64;
            content.snapshots.clear();
        }
        content.snapshots.push_back(published);
        // A client reads until its queue is empty, and waits only then.
        if content.snapshots.len() == 1 {
            drop(content);
            self.filled.notify_one();
        }
    }
}

impl Queues {
    fn add(&mut self, queue: &Arc<Queue>, hosts: &ReceivedHosts) {
        match hosts {
            ReceivedHosts::All => self.of_all_hosts.push(queue.clone()),
            ReceivedHosts::Some(hosts) => {
                for host in hosts {
                    self.by_host.entry(*host).or_default().push(queue.clone());
                }
            }
        }
    }

    fn remove(&mut self, queue: &Arc<Queue>, hosts: &ReceivedHosts) {
        let remove_from = |queues: &mut Vec<Arc<Queue>>| {
            if let Some(index) = queues.iter().position(|other| Arc::ptr_eq(other, queue)) {
                queues.swap_remove(index);
            }
        };
        match hosts {
            ReceivedHosts::All => remove_from(&mut self.of_all_hosts),
            ReceivedHosts::Some(hosts) => {
                for host in hosts {
                    let Some(queues) = self.by_host.get_mut(host) else { continue };
                    remove_from(queues);
                    if queues.is_empty() {
                        self.by_host.remove(host);
                    }
                }
            }
        }
    }
}

impl Receivers {
    fn write(&self) -> RwLockWriteGuard<'_, Queues> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a client that receives all hosts.
    pub(crate) fn add(&self) -> LiveReceiver {
        let (queue, hosts) = (Arc::<Queue>::default(), ReceivedHosts::All);
        queue.content().capacity = capacity(&hosts);
        self.write().add(&queue, &hosts);
        LiveReceiver { receivers: self.clone(), queue, hosts }
    }

    /// Queues a snapshot for the clients that receive its host.
    pub(crate) fn send(&self, published: &Arc<PublishedSnapshot>) {
        let queues = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let of_host = queues.by_host.get(&published.host);
        for queue in queues.of_all_hosts.iter().chain(of_host.into_iter().flatten()) {
            queue.push(published.clone());
        }
    }
}

impl LiveReceiver {
    /// Changes the hosts whose snapshots the client receives. Queued snapshots of other hosts are dropped.
    pub fn set_hosts(&mut self, hosts: ReceivedHosts) {
        if self.hosts == hosts {
            return;
        }
        let mut queues = self.receivers.write();
        queues.remove(&self.queue, &self.hosts);
        queues.add(&self.queue, &hosts);
        let mut content = self.queue.content();
        content.capacity = capacity(&hosts);
        if let ReceivedHosts::Some(hosts) = &hosts {
            content.snapshots.retain(|published| hosts.contains(&published.host));
        }
        drop(content);
        self.hosts = hosts;
    }

    /// Next snapshot without waiting; `None` if the queue is empty.
    ///
    /// # Errors
    /// Returns [`Lagged`] once after snapshots were dropped.
    pub fn try_recv(&self) -> Option<Result<Arc<PublishedSnapshot>, Lagged>> {
        let mut content = self.queue.content();
        match std::mem::take(&mut content.dropped) {
            0 => content.snapshots.pop_front().map(Ok),
            dropped => Some(Err(Lagged(dropped))),
        }
    }

    /// Waits for the next snapshot. May be cancelled without loss.
    ///
    /// # Errors
    /// Returns [`Lagged`] once after snapshots were dropped.
    pub async fn recv(&self) -> Result<Arc<PublishedSnapshot>, Lagged> {
        loop {
            if let Some(received) = self.try_recv() {
                return received;
            }
            self.queue.filled.notified().await;
        }
    }

    /// Drops all queued snapshots. Returns their number.
    pub fn clear(&self) -> u64 {
        let mut content = self.queue.content();
        let dropped = content.dropped + content.snapshots.len() as u64;
        (content.snapshots, content.dropped) = (VecDeque::new(), 0);
        dropped
    }
}

impl Drop for LiveReceiver {
    fn drop(&mut self) {
        self.receivers.write().remove(&self.queue, &self.hosts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recent_window::tests::published;
    use std::time::Duration;

    /// Times of the queued snapshots.
    fn times(receiver: &LiveReceiver) -> Vec<i64> {
        std::iter::from_fn(|| receiver.try_recv()).map(|received| received.unwrap().snapshot.at_ms).collect()
    }

    #[test]
    fn clients_receive_the_snapshots_of_their_hosts() {
        let (receivers, a, b) = (Receivers::default(), HostId::generate(), HostId::generate());
        let (all, mut one) = (receivers.add(), receivers.add());
        receivers.send(&published(b, 1));
        receivers.send(&published(a, 2));
        one.set_hosts(ReceivedHosts::Some([a].into()));
        assert_eq!(times(&one), [2], "queued snapshots of other hosts are dropped");
        receivers.send(&published(b, 3));
        receivers.send(&published(a, 4));
        assert_eq!((times(&one), times(&all)), (vec![4], vec![1, 2, 3, 4]));
        one.set_hosts(ReceivedHosts::Some([].into()));
        receivers.send(&published(a, 5));
        assert_eq!(times(&one), [0; 0]);
        one.set_hosts(ReceivedHosts::All);
        receivers.send(&published(b, 6));
        assert_eq!((times(&one), times(&all)), (vec![6], vec![5, 6]));
    }

    #[test]
    fn queues_are_bounded_and_drops_are_counted() {
        let (receivers, host) = (Receivers::default(), HostId::generate());
        let mut receiver = receivers.add();
        receiver.set_hosts(ReceivedHosts::Some([host].into()));
        let full = i64::try_from(limits::MAX_QUEUED_SNAPSHOTS_PER_HOST).unwrap();
        for at_ms in 0..=full {
            receivers.send(&published(host, at_ms));
        }
        assert_eq!(receiver.try_recv().unwrap().err(), Some(Lagged(full.unsigned_abs())));
        assert_eq!(times(&receiver), [full]);
        receivers.send(&published(host, 0));
        assert_eq!((receiver.clear(), receiver.clear()), (1, 0));
    }

    #[test]
    fn dropped_receivers_leave_nothing_behind() {
        let (receivers, host) = (Receivers::default(), HostId::generate());
        let (first, mut second) = (receivers.add(), receivers.add());
        second.set_hosts(ReceivedHosts::Some([host].into()));
        drop((first, second));
        let queues = receivers.0.read().unwrap();
        assert!(queues.of_all_hosts.is_empty() && queues.by_host.is_empty());
    }

    #[tokio::test]
    async fn waiting_clients_are_woken_and_cancelled_waits_lose_nothing() {
        let (receivers, host) = (Receivers::default(), HostId::generate());
        let receiver = receivers.add();
        let wait = Duration::from_millis(1);
        assert!(tokio::time::timeout(wait, receiver.recv()).await.is_err());
        receivers.send(&published(host, 1));
        receivers.send(&published(host, 2));
        assert_eq!(receiver.recv().await.unwrap().snapshot.at_ms, 1);
        assert_eq!(receiver.recv().await.unwrap().snapshot.at_ms, 2);
        let waiting = tokio::spawn(async move { receiver.recv().await.unwrap().snapshot.at_ms });
        tokio::task::yield_now().await;
        receivers.send(&published(host, 3));
        assert_eq!(waiting.await.unwrap(), 3);
    }
}

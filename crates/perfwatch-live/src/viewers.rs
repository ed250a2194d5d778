//! Viewers of hosts.
//!
//! A viewer is a page that is open on one host; a list of hosts is none.

use crate::client_share::ClientShare;
use perfwatch_model::HostId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Viewers of each viewed host, as the shares of their accounts. Clones share the list.
#[derive(Clone, Default)]
pub struct Viewers(Arc<Mutex<HashMap<HostId, Vec<Arc<ClientShare>>>>>);

/// Viewer of a host until it is dropped.
pub struct ViewerGuard {
    viewers: Viewers,
    host: HostId,
    share: Arc<ClientShare>,
}

impl Viewers {
    /// Adds a viewer of a host.
    pub fn add(&self, host: HostId, share: &Arc<ClientShare>) -> ViewerGuard {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(host).or_default().push(share.clone());
        ViewerGuard { viewers: self.clone(), host, share: share.clone() }
    }

    /// Hosts that have viewers, in no order.
    pub fn hosts(&self) -> Vec<HostId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Shares of the accounts that view a host.
    pub fn shares(&self, host: HostId) -> Vec<Arc<ClientShare>> {
        let viewers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shares: Vec<Arc<ClientShare>> = Vec::new();
        for share in viewers.get(&host).into_iter().flatten() {
            if !shares.iter().any(|known| Arc::ptr_eq(known, share)) {
                shares.push(share.clone());
            }
        }
        shares
    }

    /// Returns whether a host has viewers.
    pub fn contains(&self, host: HostId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&host)
    }
}

impl Drop for ViewerGuard {
    fn drop(&mut self) {
        let mut viewers = self.viewers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shares) = viewers.get_mut(&self.host) {
            if let Some(index) = shares.iter().position(|share| Arc::ptr_eq(share, &self.share)) {
                shares.swap_remove(index);
            }
            if shares.is_empty() {
                viewers.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_has_viewers_until_the_last_leaves() {
        let (viewers, host) = (Viewers::default(), HostId::generate());
        let (one, other) = (Arc::default(), Arc::default());
        let (first, second) = (viewers.add(host, &one), viewers.add(host, &other));
        drop(first);
        assert!(viewers.contains(host) && viewers.hosts() == [host]);
        assert!(viewers.shares(host).iter().all(|share| Arc::ptr_eq(share, &other)));
        drop(second);
        assert!(!viewers.contains(host) && viewers.hosts().is_empty() && viewers.shares(host).is_empty());
    }
}

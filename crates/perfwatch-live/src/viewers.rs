//! Number of viewers per host.
//!
//! A viewer is a page that is open on one host; a list of hosts is none.

use perfwatch_model::HostId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Number of viewers of each viewed host. Clones share the counts.
#[derive(Clone, Default)]
pub struct ViewerCounts(Arc<Mutex<HashMap<HostId, usize>>>);

/// Viewer of a host, counted until it is dropped.
pub struct ViewerGuard {
    counts: ViewerCounts,
    host: HostId,
}

impl ViewerCounts {
    /// Adds a viewer of a host.
    pub fn add(&self, host: HostId) -> ViewerGuard {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(host).or_default() += 1;
        ViewerGuard { counts: self.clone(), host }
    }

    /// Hosts that have viewers, in no order.
    pub fn hosts(&self) -> Vec<HostId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Returns whether a host has viewers.
    pub fn contains(&self, host: HostId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&host)
    }
}

impl Drop for ViewerGuard {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_has_viewers_until_the_last_leaves() {
        let (counts, host) = (ViewerCounts::default(), HostId::generate());
        let (first, second) = (counts.add(host), counts.add(host));
        drop(first);
        assert!(counts.contains(host) && counts.hosts() == [host]);
        drop(second);
        assert!(!counts.contains(host) && counts.hosts().is_empty());
    }
}

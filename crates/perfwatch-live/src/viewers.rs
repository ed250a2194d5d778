//! Which hosts somebody watches on their own: a page that is open on one, not a list of all.

use perfwatch_model::HostId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How many watch each.
#[derive(Clone, Default)]
pub struct ViewerCounts(Arc<Mutex<HashMap<HostId, usize>>>);

/// One who watches, until it is dropped.
pub struct ViewerGuard {
    watching: ViewerCounts,
    host: HostId,
}

impl ViewerCounts {
    pub fn add(&self, host: HostId) -> ViewerGuard {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(host).or_default() += 1;
        ViewerGuard { watching: self.clone(), host }
    }

    pub fn hosts(&self) -> Vec<HostId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    pub fn contains(&self, host: HostId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&host)
    }
}

impl Drop for ViewerGuard {
    fn drop(&mut self) {
        let mut all = self.watching.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_has_viewers_until_the_last_leaves() {
        let (watching, host) = (ViewerCounts::default(), HostId::generate());
        let (one, other) = (watching.add(host), watching.add(host));
        drop(one);
        assert!(watching.contains(host) && watching.hosts() == [host]);
        drop(other);
        assert!(!watching.contains(host) && watching.hosts().is_empty());
    }
}

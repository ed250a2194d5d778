//! Which hosts somebody watches on their own: a page that is open on one, not a list of all.

use perfwatch_model::HostId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How many watch each.
#[derive(Clone, Default)]
pub(super) struct Watching(Arc<Mutex<HashMap<HostId, usize>>>);

/// One who watches, until it is dropped.
pub(super) struct Watcher {
    watching: Watching,
    host: HostId,
}

impl Watching {
    pub(super) fn begin(&self, host: HostId) -> Watcher {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(host).or_default() += 1;
        Watcher { watching: self.clone(), host }
    }

    pub(super) fn all(&self) -> Vec<HostId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    pub(super) fn is(&self, host: HostId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&host)
    }
}

impl Drop for Watcher {
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
    fn a_host_is_watched_until_the_last_one_leaves() {
        let (watching, host) = (Watching::default(), HostId::generate());
        let (one, other) = (watching.begin(host), watching.begin(host));
        drop(one);
        assert!(watching.is(host) && watching.all() == [host]);
        drop(other);
        assert!(!watching.is(host) && watching.all().is_empty());
    }
}

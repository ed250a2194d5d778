//! Detection of several senders with one host id, such as clones of a machine that share a host id. Their
//! snapshots would be mixed without a notice.

use perfwatch_model::{BootId, HostId};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Time for which a conflict is reported after it was last observed.
const CONFLICT_TTL_MS: i64 = 3_600_000;
/// Maximum number of earlier boots that are remembered per host.
const MAX_BOOTS: usize = 8;

/// Boots of one host, as its snapshots report them.
struct HostBoots {
    current: BootId,
    /// Time of the first snapshot of the current boot, clock of the sender, Unix milliseconds.
    current_since_ms: i64,
    earlier: VecDeque<BootId>,
    /// Time of the last conflict, clock of the hub, Unix milliseconds.
    conflict_ms: Option<i64>,
}

/// Boots of all hosts that sent since the start of the hub.
#[derive(Default)]
pub struct SenderConflicts(Mutex<HashMap<HostId, HostBoots>>);

impl SenderConflicts {
    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, HostBoots>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the boot of an accepted snapshot. A boot that continues after a later boot began is the boot of
    /// another machine; snapshots that arrive late are older. Returns true if the conflict is new.
    pub fn record(&self, host: HostId, boot: BootId, at_ms: i64, now_ms: i64) -> bool {
        // Scripts do not report a boot.
        if boot == BootId::default() {
            return false;
        }
        let mut hosts = self.lock();
        let boots = hosts.entry(host).or_insert_with(|| HostBoots {
            current: boot,
            current_since_ms: at_ms,
            earlier: VecDeque::new(),
            conflict_ms: None,
        });
        if boots.current == boot {
            return false;
        }
        let is_known = boots.earlier.contains(&boot);
        if is_known && at_ms <= boots.current_since_ms {
            return false;
        }
        let previous = std::mem::replace(&mut boots.current, boot);
        boots.current_since_ms = at_ms;
        boots.earlier.retain(|earlier| *earlier != boot && *earlier != previous);
        boots.earlier.push_back(previous);
        if boots.earlier.len() > MAX_BOOTS {
            boots.earlier.pop_front();
        }
        let was_reported = boots.conflict_ms.is_some_and(|at| now_ms - at < CONFLICT_TTL_MS);
        if is_known {
            boots.conflict_ms = Some(now_ms);
        }
        is_known && !was_reported
    }

    /// Time of the last conflict of a host; `None` without one in the last hour.
    pub fn last_conflict_ms(&self, host: HostId, now_ms: i64) -> Option<i64> {
        let conflict_ms = self.lock().get(&host)?.conflict_ms?;
        (now_ms - conflict_ms < CONFLICT_TTL_MS).then_some(conflict_ms)
    }

    /// Number of hosts with a conflict in the last hour.
    pub fn count(&self, now_ms: i64) -> usize {
        let is_current =
            |boots: &&HostBoots| boots.conflict_ms.is_some_and(|at| now_ms - at < CONFLICT_TTL_MS);
        self.lock().values().filter(is_current).count()
    }

    /// Removes a deleted host.
    pub fn remove(&self, host: HostId) {
        self.lock().remove(&host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternating_boots_are_a_conflict_and_reboots_are_not() {
        let conflicts = SenderConflicts::default();
        let host = HostId::generate();
        let [one, two, three] = [BootId::generate(), BootId::generate(), BootId::generate()];
        let record = |boot, at_ms| conflicts.record(host, boot, at_ms, at_ms);
        // A reboot, then snapshots of the earlier boot that arrive late.
        assert!(!record(one, 1_000) && !record(two, 3_000) && !record(one, 2_000) && !record(three, 9_000));
        assert!(!record(BootId::default(), 9_500));
        assert_eq!((conflicts.count(10_000), conflicts.last_conflict_ms(host, 10_000)), (0, None));
        // Two machines.
        assert!(record(two, 10_000));
        assert!(!record(three, 11_000), "reported once");
        assert_eq!((conflicts.count(11_000), conflicts.last_conflict_ms(host, 11_000)), (1, Some(11_000)));
        assert_eq!(conflicts.count(11_000 + CONFLICT_TTL_MS), 0);
        assert!(record(two, 12_000 + CONFLICT_TTL_MS), "reported again after an hour");
        conflicts.remove(host);
        assert_eq!(conflicts.count(12_000), 0);
    }
}

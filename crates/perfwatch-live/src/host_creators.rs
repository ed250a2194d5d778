//! Hosts that accounts and tokens created by sending for them, and how many more they may create.

use crate::host_names::{HostRegistryError, NameRight};
use perfwatch_model::{limit_table, limits};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Period of [`limits::MAX_NEW_HOSTS_PER_HOUR`].
const PERIOD_MS: i64 = 3_600_000;

/// Hosts of an account or token.
#[derive(Debug, Default)]
struct Created {
    hosts: usize,
    /// Start of the current period, Unix milliseconds, and number of new hosts in it.
    period: (i64, usize),
}

/// What a sender may do with the hosts that it sends for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSender {
    /// Right to the names of other hosts.
    pub name_right: NameRight,
    /// Account or token that new hosts count for; `None` for agents and SSH collection, whose hosts were
    /// admitted one by one.
    pub creates_as: Option<Arc<str>>,
}

impl Default for HostSender {
    fn default() -> Self {
        Self { name_right: NameRight::AnyHost, creates_as: None }
    }
}

/// Numbers of hosts by the account or token that created them.
#[derive(Debug, Default)]
pub(crate) struct HostCreators(HashMap<Arc<str>, Created>);

impl HostCreators {
    /// Checks whether a sender may create a host now. The caller adds the host.
    ///
    /// # Errors
    /// Returns [`HostRegistryError::SenderLimitReached`] or [`HostRegistryError::TooManyNewHosts`].
    pub(crate) fn check(&self, sender: &HostSender, now_ms: i64) -> Result<(), HostRegistryError> {
        let Some(created) = sender.creates_as.as_ref().and_then(|sender| self.0.get(sender)) else {
            return Ok(());
        };
        if created.hosts >= limits::MAX_HOSTS_PER_SENDER {
            limit_table::HOSTS_PER_SENDER.refuse();
            return Err(HostRegistryError::SenderLimitReached);
        }
        let (since_ms, count) = created.period;
        if count >= limits::MAX_NEW_HOSTS_PER_HOUR && now_ms - since_ms < PERIOD_MS {
            let retry_ms = (since_ms + PERIOD_MS - now_ms).max(1_000);
            limit_table::NEW_HOSTS.refuse();
            let retry_after = Duration::from_millis(retry_ms.cast_unsigned());
            return Err(HostRegistryError::TooManyNewHosts { retry_after });
        }
        Ok(())
    }

    /// Counts a host that a sender created. `first_seen_ms` is when, Unix milliseconds.
    pub(crate) fn add(&mut self, sender: &Arc<str>, first_seen_ms: i64) {
        let created = self.0.entry(sender.clone()).or_default();
        created.hosts += 1;
        if first_seen_ms - created.period.0 >= PERIOD_MS {
            created.period = (first_seen_ms, 0);
        }
        created.period.1 += 1;
    }

    /// Subtracts a deleted host.
    pub(crate) fn remove(&mut self, sender: &Arc<str>) {
        if let Some(created) = self.0.get_mut(sender) {
            created.hosts = created.hosts.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sibling of finding C1: a token filled the list of hosts with invented ones.
    #[test]
    fn new_hosts_of_a_sender_are_bounded_per_hour_and_in_total() {
        let (mut creators, now_ms) = (HostCreators::default(), 1_763_720_000_000);
        let sender = |name: &str| HostSender { creates_as: Some(name.into()), ..HostSender::default() };
        let mut create = |at_ms| {
            creators.check(&sender("token 1"), at_ms)?;
            creators.add(&"token 1".into(), at_ms);
            Ok(())
        };
        for n in 0..limits::MAX_NEW_HOSTS_PER_HOUR {
            assert_eq!(create(now_ms), Ok(()), "{n}");
        }
        let retry_after = Duration::from_millis(3_540_000);
        assert_eq!(create(now_ms + 60_000), Err(HostRegistryError::TooManyNewHosts { retry_after }));
        let later_ms = now_ms + 3_600_000;
        for n in limits::MAX_NEW_HOSTS_PER_HOUR..limits::MAX_HOSTS_PER_SENDER {
            assert_eq!(create(later_ms), Ok(()), "{n}");
        }
        let next_day_ms = later_ms + 86_400_000;
        assert_eq!(create(next_day_ms), Err(HostRegistryError::SenderLimitReached));
        for other in [sender("token 2"), HostSender::default()] {
            assert_eq!(creators.check(&other, later_ms), Ok(()), "others are not affected");
        }
        creators.remove(&"token 1".into());
        assert_eq!(creators.check(&sender("token 1"), next_day_ms), Ok(()));
    }
}

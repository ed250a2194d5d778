//! Throttling of failed logins. After some failed attempts, an address has to wait, and so has every
//! address that attempts the same account. A correct password is not accepted before the delay is over.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Failed attempts per address without a delay.
const MAX_FREE_ATTEMPTS_PER_ADDRESS: u32 = 5;
/// Failed attempts on one account from all addresses without a delay.
const MAX_FREE_ATTEMPTS_PER_ACCOUNT: u32 = 20;
const INITIAL_DELAY: Duration = Duration::from_secs(2);
const MAX_DELAY: Duration = Duration::from_secs(15 * 60);
/// Failed attempts are forgotten after this time without a further attempt.
const ATTEMPT_TTL: Duration = Duration::from_secs(3_600);
/// Time for which a successful login exempts its address from the throttle of the account.
const TRUSTED_ADDRESS_TTL: Duration = Duration::from_secs(30 * 86_400);
/// Maximum number of tracked addresses and accounts; the oldest are evicted.
const MAX_TRACKED: usize = 50_000;

#[derive(Clone, Copy)]
struct FailedAttempts {
    count: u32,
    last: Duration,
}

impl FailedAttempts {
    fn delay(&self, free: u32, now: Duration) -> Option<Duration> {
        let excess = self.count.checked_sub(free)?;
        let delay = INITIAL_DELAY.saturating_mul(1 << excess.min(16)).min(MAX_DELAY);
        (self.last + delay).checked_sub(now).filter(|remaining| !remaining.is_zero())
    }
}

#[derive(Default)]
struct TrackedAttempts {
    addresses: HashMap<IpAddr, FailedAttempts>,
    accounts: HashMap<String, FailedAttempts>,
    /// Addresses that logged in to an account before. They are exempt from the throttle of the account:
    /// otherwise failed attempts from others could lock its owner out.
    trusted_addresses: HashMap<(IpAddr, String), Duration>,
}

/// Failed login attempts by address and by account.
#[derive(Default)]
pub struct LoginThrottle(Mutex<TrackedAttempts>);

/// Address that attempts are counted by: IPv6 addresses by their /64 network, which is one site.
pub fn address_group(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

fn record_attempt<K: Hash + Eq + Clone>(attempts: &mut HashMap<K, FailedAttempts>, key: K, now: Duration) {
    if attempts.len() >= MAX_TRACKED && !attempts.contains_key(&key) {
        attempts.retain(|_, failed| failed.last + ATTEMPT_TTL > now);
        let oldest = attempts.iter().min_by_key(|(_, failed)| failed.last).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest.filter(|_| attempts.len() >= MAX_TRACKED) {
            attempts.remove(&oldest);
        }
    }
    let failed = attempts.entry(key).or_insert(FailedAttempts { count: 0, last: now });
    failed.count = if failed.last + ATTEMPT_TTL > now { failed.count.saturating_add(1) } else { 1 };
    failed.last = now;
}

impl LoginThrottle {
    /// Remaining delay before the next attempt is accepted.
    pub fn delay(&self, address: IpAddr, account: &str, now: Duration) -> Option<Duration> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = inner
            .addresses
            .get(&address_group(address))
            .and_then(|failed| failed.delay(MAX_FREE_ATTEMPTS_PER_ADDRESS, now));
        let trusted = inner.trusted_addresses.get(&(address_group(address), account.to_owned()));
        let of_account = match trusted.is_some_and(|at| now.saturating_sub(*at) < TRUSTED_ADDRESS_TTL) {
            true => None,
            false => inner
                .accounts
                .get(account)
                .and_then(|failed| failed.delay(MAX_FREE_ATTEMPTS_PER_ACCOUNT, now)),
        };
        of_address.max(of_account)
    }

    /// Counts a failed attempt.
    pub fn record_failure(&self, address: IpAddr, account: &str, now: Duration) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        record_attempt(&mut inner.addresses, address_group(address), now);
        record_attempt(&mut inner.accounts, account.to_owned(), now);
    }

    /// Clears the failed attempts of an address after a successful login. The count of the account
    /// stays, so that the owner of an account cannot guess the password of another without limit.
    pub fn record_success(&self, address: IpAddr, account: &str, now: Duration) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.addresses.remove(&address_group(address));
        if inner.trusted_addresses.len() >= MAX_TRACKED {
            inner.trusted_addresses.clear();
        }
        inner.trusted_addresses.insert((address_group(address), account.to_owned()), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_grows_and_expires() {
        let throttle = LoginThrottle::default();
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let same_network: IpAddr = "2001:db8::ffff".parse().unwrap();
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        let mut now = Duration::from_secs(1_000);
        for _ in 0..5 {
            assert_eq!(throttle.delay(address, "alice", now), None);
            throttle.record_failure(address, "alice", now);
        }
        assert_eq!(throttle.delay(same_network, "bob", now), Some(INITIAL_DELAY), "the same network");
        assert_eq!(throttle.delay(other, "alice", now), None);
        now += INITIAL_DELAY;
        assert_eq!(throttle.delay(address, "alice", now), None);
        throttle.record_failure(address, "alice", now);
        assert_eq!(throttle.delay(address, "alice", now), Some(INITIAL_DELAY * 2));
        for _ in 0..40 {
            throttle.record_failure(address, "alice", now);
        }
        assert_eq!(throttle.delay(address, "alice", now), Some(MAX_DELAY));
        assert_eq!(throttle.delay(other, "alice", now), Some(MAX_DELAY), "one account from everywhere");
        assert_eq!(throttle.delay(other, "bob", now), None);
        throttle.record_success(other, "alice", now);
        assert_eq!(throttle.delay(other, "alice", now), None, "trusted address");
        throttle.record_success(address, "bob", now);
        assert_eq!(throttle.delay(address, "bob", now), None);
        now += ATTEMPT_TTL;
        throttle.record_failure(other, "alice", now);
        assert_eq!(throttle.delay("192.0.2.9".parse().unwrap(), "alice", now), None, "long ago");
    }

    #[test]
    fn tracked_addresses_are_bounded() {
        let throttle = LoginThrottle::default();
        for n in 0..MAX_TRACKED as u32 + 10 {
            throttle.record_failure(IpAddr::V4(n.into()), "x", Duration::from_millis(n.into()));
        }
        assert_eq!(throttle.0.lock().unwrap().addresses.len(), MAX_TRACKED);
    }
}

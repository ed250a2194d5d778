//! Guessing is slow: after some wrong tries, an address has to wait, and so does who tries one
//! account from everywhere. The right password does not open before the wait is over.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Wrong tries that cost nothing: people mistype.
const FREE_ATTEMPTS_PER_ADDRESS: u32 = 5;
/// From everywhere together, of one account.
const FREE_ATTEMPTS_PER_ACCOUNT: u32 = 20;
const INITIAL_DELAY: Duration = Duration::from_secs(2);
const MAX_DELAY: Duration = Duration::from_secs(15 * 60);
/// Forgotten when this long nothing was tried.
const ATTEMPT_TTL: Duration = Duration::from_secs(3_600);
/// How long a right password speaks for its address.
const TRUSTED_ADDRESS_TTL: Duration = Duration::from_secs(30 * 86_400);
/// Remembered at one time: beyond it the oldest go.
const MAX_TRACKED: usize = 50_000;

#[derive(Clone, Copy)]
struct FailedAttempts {
    wrong: u32,
    last: Duration,
}

impl FailedAttempts {
    fn wait(&self, free: u32, now: Duration) -> Option<Duration> {
        let over = self.wrong.checked_sub(free)?;
        let wait = INITIAL_DELAY.saturating_mul(1 << over.min(16)).min(MAX_DELAY);
        (self.last + wait).checked_sub(now).filter(|left| !left.is_zero())
    }
}

#[derive(Default)]
struct Inner {
    addresses: HashMap<IpAddr, FailedAttempts>,
    accounts: HashMap<String, FailedAttempts>,
    /// From where an account's right password came before: there it does not wait for what others
    /// try on it, or anyone could keep it locked.
    trusted_addresses: HashMap<(IpAddr, String), Duration>,
}

/// What was tried.
#[derive(Default)]
pub struct LoginThrottle(Mutex<Inner>);

/// What counts as one: an IPv6 site has 2⁶⁴ addresses.
pub fn address_group(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

fn record_attempt<K: Hash + Eq + Clone>(tries: &mut HashMap<K, FailedAttempts>, key: K, now: Duration) {
    if tries.len() >= MAX_TRACKED && !tries.contains_key(&key) {
        tries.retain(|_, tries| tries.last + ATTEMPT_TTL > now);
        let oldest = tries.iter().min_by_key(|(_, tries)| tries.last).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest.filter(|_| tries.len() >= MAX_TRACKED) {
            tries.remove(&oldest);
        }
    }
    let tries = tries.entry(key).or_insert(FailedAttempts { wrong: 0, last: now });
    tries.wrong = if tries.last + ATTEMPT_TTL > now { tries.wrong.saturating_add(1) } else { 1 };
    tries.last = now;
}

impl LoginThrottle {
    /// How long to wait before the next try.
    pub fn delay(&self, address: IpAddr, account: &str, now: Duration) -> Option<Duration> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = inner
            .addresses
            .get(&address_group(address))
            .and_then(|tries| tries.wait(FREE_ATTEMPTS_PER_ADDRESS, now));
        let good = inner.trusted_addresses.get(&(address_group(address), account.to_owned()));
        let there = match good.is_some_and(|at| now.saturating_sub(*at) < TRUSTED_ADDRESS_TTL) {
            true => None,
            false => inner.accounts.get(account).and_then(|tries| tries.wait(FREE_ATTEMPTS_PER_ACCOUNT, now)),
        };
        here.max(there)
    }

    /// A wrong try.
    pub fn record_failure(&self, address: IpAddr, account: &str, now: Duration) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        record_attempt(&mut inner.addresses, address_group(address), now);
        record_attempt(&mut inner.accounts, account.to_owned(), now);
    }

    /// A right one: this address is trusted again; the account's count stays, or who knows one
    /// account could guess another for ever.
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
        let here: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::ffff".parse().unwrap();
        let elsewhere: IpAddr = "192.0.2.1".parse().unwrap();
        let mut now = Duration::from_secs(1_000);
        for _ in 0..5 {
            assert_eq!(throttle.delay(here, "alice", now), None);
            throttle.record_failure(here, "alice", now);
        }
        assert_eq!(throttle.delay(neighbour, "bob", now), Some(INITIAL_DELAY), "the same network");
        assert_eq!(throttle.delay(elsewhere, "alice", now), None);
        now += INITIAL_DELAY;
        assert_eq!(throttle.delay(here, "alice", now), None);
        throttle.record_failure(here, "alice", now);
        assert_eq!(throttle.delay(here, "alice", now), Some(INITIAL_DELAY * 2));
        for _ in 0..40 {
            throttle.record_failure(here, "alice", now);
        }
        assert_eq!(throttle.delay(here, "alice", now), Some(MAX_DELAY));
        assert_eq!(throttle.delay(elsewhere, "alice", now), Some(MAX_DELAY), "one account from everywhere");
        assert_eq!(throttle.delay(elsewhere, "bob", now), None);
        throttle.record_success(elsewhere, "alice", now);
        assert_eq!(throttle.delay(elsewhere, "alice", now), None, "where she comes from");
        throttle.record_success(here, "bob", now);
        assert_eq!(throttle.delay(here, "bob", now), None);
        now += ATTEMPT_TTL;
        throttle.record_failure(elsewhere, "alice", now);
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

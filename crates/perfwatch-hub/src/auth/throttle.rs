//! Guessing is slow: after some wrong tries, an address has to wait, and so does who tries one
//! account from everywhere. The right password does not open before the wait is over.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Wrong tries that cost nothing: people mistype.
const FREE: u32 = 5;
/// From everywhere together, of one account.
const FREE_OF_ACCOUNT: u32 = 20;
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
/// Forgotten when this long nothing was tried.
const FORGET: Duration = Duration::from_secs(3_600);
/// How long a right password speaks for its address.
const KNOWN_GOOD: Duration = Duration::from_secs(30 * 86_400);
/// Remembered at one time: beyond it the oldest go.
const MOST: usize = 50_000;

#[derive(Clone, Copy)]
struct Tries {
    wrong: u32,
    last: Duration,
}

impl Tries {
    fn wait(&self, free: u32, now: Duration) -> Option<Duration> {
        let over = self.wrong.checked_sub(free)?;
        let wait = FIRST_WAIT.saturating_mul(1 << over.min(16)).min(LONGEST_WAIT);
        (self.last + wait).checked_sub(now).filter(|left| !left.is_zero())
    }
}

#[derive(Default)]
struct Inner {
    addresses: HashMap<IpAddr, Tries>,
    accounts: HashMap<String, Tries>,
    /// From where an account's right password came before: there it does not wait for what others
    /// try on it, or anyone could keep it locked.
    good: HashMap<(IpAddr, String), Duration>,
}

/// What was tried.
#[derive(Default)]
pub(crate) struct Throttle(Mutex<Inner>);

/// What counts as one: an IPv6 site has 2⁶⁴ addresses.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

fn count<K: Hash + Eq + Clone>(tries: &mut HashMap<K, Tries>, key: K, now: Duration) {
    if tries.len() >= MOST && !tries.contains_key(&key) {
        tries.retain(|_, tries| tries.last + FORGET > now);
        let oldest = tries.iter().min_by_key(|(_, tries)| tries.last).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest.filter(|_| tries.len() >= MOST) {
            tries.remove(&oldest);
        }
    }
    let tries = tries.entry(key).or_insert(Tries { wrong: 0, last: now });
    tries.wrong = if tries.last + FORGET > now { tries.wrong.saturating_add(1) } else { 1 };
    tries.last = now;
}

impl Throttle {
    /// How long to wait before the next try.
    pub(crate) fn wait(&self, address: IpAddr, account: &str, now: Duration) -> Option<Duration> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = inner.addresses.get(&network(address)).and_then(|tries| tries.wait(FREE, now));
        let good = inner.good.get(&(network(address), account.to_owned()));
        let there = match good.is_some_and(|at| now.saturating_sub(*at) < KNOWN_GOOD) {
            true => None,
            false => inner.accounts.get(account).and_then(|tries| tries.wait(FREE_OF_ACCOUNT, now)),
        };
        here.max(there)
    }

    /// A wrong try.
    pub(crate) fn wrong(&self, address: IpAddr, account: &str, now: Duration) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut inner.addresses, network(address), now);
        count(&mut inner.accounts, account.to_owned(), now);
    }

    /// A right one: this address is trusted again; the account's count stays, or who knows one
    /// account could guess another for ever.
    pub(crate) fn right(&self, address: IpAddr, account: &str, now: Duration) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.addresses.remove(&network(address));
        if inner.good.len() >= MOST {
            inner.good.clear();
        }
        inner.good.insert((network(address), account.to_owned()), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_gets_slower_and_is_forgotten() {
        let throttle = Throttle::default();
        let here: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::ffff".parse().unwrap();
        let elsewhere: IpAddr = "192.0.2.1".parse().unwrap();
        let mut now = Duration::from_secs(1_000);
        for _ in 0..5 {
            assert_eq!(throttle.wait(here, "alice", now), None);
            throttle.wrong(here, "alice", now);
        }
        assert_eq!(throttle.wait(neighbour, "bob", now), Some(FIRST_WAIT), "the same network");
        assert_eq!(throttle.wait(elsewhere, "alice", now), None);
        now += FIRST_WAIT;
        assert_eq!(throttle.wait(here, "alice", now), None);
        throttle.wrong(here, "alice", now);
        assert_eq!(throttle.wait(here, "alice", now), Some(FIRST_WAIT * 2));
        for _ in 0..40 {
            throttle.wrong(here, "alice", now);
        }
        assert_eq!(throttle.wait(here, "alice", now), Some(LONGEST_WAIT));
        assert_eq!(throttle.wait(elsewhere, "alice", now), Some(LONGEST_WAIT), "one account from everywhere");
        assert_eq!(throttle.wait(elsewhere, "bob", now), None);
        throttle.right(elsewhere, "alice", now);
        assert_eq!(throttle.wait(elsewhere, "alice", now), None, "where she comes from");
        throttle.right(here, "bob", now);
        assert_eq!(throttle.wait(here, "bob", now), None);
        now += FORGET;
        throttle.wrong(elsewhere, "alice", now);
        assert_eq!(throttle.wait("192.0.2.9".parse().unwrap(), "alice", now), None, "long ago");
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..MOST as u32 + 10 {
            throttle.wrong(IpAddr::V4(n.into()), "x", Duration::from_millis(n.into()));
        }
        assert_eq!(throttle.0.lock().unwrap().addresses.len(), MOST);
    }
}

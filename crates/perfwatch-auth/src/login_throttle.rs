//! Throttling of failed logins. After some failed attempts, an address has to wait, and so has every
//! address that attempts the same account. A correct password is not accepted before the delay is over.
//!
//! An address that logged in to an account before is trusted: its attempts on the account are limited apart from
//! those of all other addresses, so that strangers do not lock the owner of the account out.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Failed attempts per address without a delay.
const MAX_FREE_ATTEMPTS_PER_ADDRESS: u32 = 5;
/// Failed attempts on one account without a delay: from each trusted address, and from all others together.
const MAX_FREE_ATTEMPTS_PER_ACCOUNT: u32 = 20;
const INITIAL_DELAY: Duration = Duration::from_secs(2);
const MAX_DELAY: Duration = Duration::from_secs(15 * 60);
/// Failed attempts are forgotten after this time without a further attempt.
const ATTEMPT_TTL: Duration = Duration::from_secs(3_600);
/// Time for which an address is trusted after a successful login.
pub(crate) const TRUSTED_ADDRESS_TTL: Duration = Duration::from_secs(30 * 86_400);
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
    addresses: HashMap<(IpAddr, u8), FailedAttempts>,
    accounts: HashMap<String, FailedAttempts>,
    /// Attempts on an account from an address.
    pairs: HashMap<(IpAddr, String), FailedAttempts>,
    /// The same since the last successful login: the part of the counts of the address that a login clears.
    uncleared: HashMap<(IpAddr, String), FailedAttempts>,
    /// Times until which addresses are trusted for an account.
    trusted_until: HashMap<(IpAddr, String), Duration>,
}

/// Failed login attempts by address and by account.
pub struct LoginThrottle {
    attempts: Mutex<TrackedAttempts>,
    /// Failed attempts per address without a delay.
    free_per_address: u32,
}

impl Default for LoginThrottle {
    fn default() -> Self {
        Self::with_free_attempts(MAX_FREE_ATTEMPTS_PER_ADDRESS)
    }
}

/// Addresses that are limited together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressGroup {
    /// Address, or network of an IPv6 address.
    pub network: IpAddr,
    /// Length of the network prefix in bits.
    pub prefix_len: u8,
    /// Multiple of the limit per address that the group may use.
    pub share: u32,
}

/// Prefix lengths of IPv6 networks that a client may have, with their shares: a link, a home, a site (RFC 6177).
/// A site has 65,536 networks of 64 bits; limits per link alone would not limit it.
const IPV6_GROUPS: [(u8, u32); 3] = [(64, 1), (56, 4), (48, 16)];

/// Groups that the requests of an address count for.
pub fn address_groups(address: IpAddr) -> [Option<AddressGroup>; 3] {
    match address.to_canonical() {
        network @ IpAddr::V4(_) => [Some(AddressGroup { network, prefix_len: 32, share: 1 }), None, None],
        IpAddr::V6(v6) => IPV6_GROUPS.map(|(prefix_len, share)| {
            let mask = u128::MAX << (128 - u32::from(prefix_len));
            Some(AddressGroup { network: IpAddr::V6((v6.to_bits() & mask).into()), prefix_len, share })
        }),
    }
}

/// Smallest group of an address: the address itself, or the /64 network of an IPv6 address.
fn address_group(address: IpAddr) -> IpAddr {
    address_groups(address)[0].map_or(address, |group| group.network)
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
    /// Throttle without failed attempts, which accepts this number of them per address without a delay.
    pub fn with_free_attempts(free_per_address: u32) -> Self {
        Self { attempts: Mutex::default(), free_per_address }
    }

    /// Remaining delay before the next attempt is accepted.
    pub fn delay(&self, address: IpAddr, account: &str, now: Duration) -> Option<Duration> {
        let inner = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_group = |group: AddressGroup| {
            let failed = inner.addresses.get(&(group.network, group.prefix_len))?;
            failed.delay(self.free_per_address * group.share, now)
        };
        let of_address = address_groups(address).into_iter().flatten().filter_map(of_group).max();
        let pair = (address_group(address), account.to_owned());
        let failed = match inner.trusted_until.get(&pair).is_some_and(|until| *until > now) {
            true => inner.pairs.get(&pair),
            false => inner.accounts.get(account),
        };
        of_address.max(failed.and_then(|failed| failed.delay(MAX_FREE_ATTEMPTS_PER_ACCOUNT, now)))
    }

    /// Counts a failed attempt on an account; of the address alone if there is no account.
    pub fn record_failure(&self, address: IpAddr, account: Option<&str>, now: Duration) {
        let mut inner = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        for group in address_groups(address).into_iter().flatten() {
            record_attempt(&mut inner.addresses, (group.network, group.prefix_len), now);
        }
        if let Some(account) = account {
            record_attempt(&mut inner.accounts, account.to_owned(), now);
            let pair = (address_group(address), account.to_owned());
            record_attempt(&mut inner.pairs, pair.clone(), now);
            record_attempt(&mut inner.uncleared, pair, now);
        }
    }

    /// Clears the failed attempts of an address on this account after a successful login, also from the counts of
    /// its wider networks, and trusts the address. Its attempts on other accounts stay, and so does the count of
    /// the account: a user must not be able to guess the passwords of others without limit.
    pub fn record_success(&self, address: IpAddr, account: &str, now: Duration) {
        let mut inner = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let cleared = inner.uncleared.remove(&(address_group(address), account.to_owned()));
        // Expired attempts are no longer in the counts of the address.
        let cleared =
            cleared.filter(|failed| failed.last + ATTEMPT_TTL > now).map_or(0, |failed| failed.count);
        for group in address_groups(address).into_iter().flatten() {
            if let Some(failed) = inner.addresses.get_mut(&(group.network, group.prefix_len)) {
                failed.count = failed.count.saturating_sub(cleared);
            }
        }
        drop(inner);
        self.trust(address, account, now + TRUSTED_ADDRESS_TTL);
    }

    /// Trusts an address for an account until this time.
    pub(crate) fn trust(&self, address: IpAddr, account: &str, until: Duration) {
        let mut inner = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.trusted_until.len() >= MAX_TRACKED {
            inner.trusted_until.clear();
        }
        inner.trusted_until.insert((address_group(address), account.to_owned()), until);
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
            throttle.record_failure(address, Some("alice"), now);
        }
        assert_eq!(throttle.delay(same_network, "bob", now), Some(INITIAL_DELAY), "the same network");
        assert_eq!(throttle.delay(other, "alice", now), None);
        now += INITIAL_DELAY;
        assert_eq!(throttle.delay(address, "alice", now), None);
        throttle.record_failure(address, Some("alice"), now);
        assert_eq!(throttle.delay(address, "alice", now), Some(INITIAL_DELAY * 2));
        for _ in 0..40 {
            throttle.record_failure(address, Some("alice"), now);
        }
        assert_eq!(throttle.delay(address, "alice", now), Some(MAX_DELAY));
        assert_eq!(throttle.delay(other, "alice", now), Some(MAX_DELAY), "one account from everywhere");
        assert_eq!(throttle.delay(other, "bob", now), None);
        throttle.record_success(other, "alice", now);
        assert_eq!(throttle.delay(other, "alice", now), None, "trusted address");
        throttle.record_success(address, "alice", now);
        assert_eq!(throttle.delay(address, "bob", now), None);
        assert_eq!(throttle.delay(address, "alice", now), Some(MAX_DELAY), "many attempts on the account");
        now += ATTEMPT_TTL;
        throttle.record_failure(other, Some("alice"), now);
        assert_eq!(throttle.delay("192.0.2.9".parse().unwrap(), "alice", now), None, "long ago");
    }

    #[test]
    fn tracked_addresses_are_bounded() {
        let throttle = LoginThrottle::default();
        for n in 0..MAX_TRACKED as u32 + 10 {
            throttle.record_failure(IpAddr::V4(n.into()), Some("x"), Duration::from_millis(n.into()));
        }
        assert_eq!(throttle.attempts.lock().unwrap().addresses.len(), MAX_TRACKED);
    }

    /// L5: a site with a /48 cannot guess from 65,536 networks.
    #[test]
    fn failed_attempts_of_an_ipv6_site_are_throttled() {
        let now = Duration::from_secs(1_000);
        for (first_bit, share) in [(48, 16), (56, 4), (64, 1)] {
            let throttle = LoginThrottle::default();
            let network = |n: u32| {
                IpAddr::V6(((0x2001_0db8_u128 << 96) | (u128::from(n) << (128 - first_bit - 8))).into())
            };
            let mut free = 0;
            for n in 0..256 {
                if throttle.delay(network(n), &n.to_string(), now).is_none() {
                    free += 1;
                    throttle.record_failure(network(n), Some(&n.to_string()), now);
                }
            }
            assert_eq!(free, 5 * share, "/{first_bit}");
        }
    }

    /// L4: wrong setup links count for their addresses only.
    #[test]
    fn failures_without_an_account_do_not_throttle_others() {
        let throttle = LoginThrottle::default();
        let now = Duration::from_secs(1_000);
        for n in 0..1_000_u32 {
            throttle.record_failure(IpAddr::V4(n.into()), None, now);
        }
        assert_eq!(throttle.delay("192.0.2.1".parse().unwrap(), "", now), None);
    }

    /// F2 (second review): a user logged in to the own account between guesses of the password of a user who logs
    /// in from the same address, and guessed without limit.
    #[test]
    fn login_clears_failed_attempts_on_its_own_account_only() {
        let throttle = LoginThrottle::default();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let mut now = Duration::from_secs(1_000);
        throttle.record_success(address, "admin", now);
        let guess = |now| {
            let is_free = throttle.delay(address, "admin", now).is_none();
            if is_free {
                throttle.record_failure(address, Some("admin"), now);
            }
            throttle.record_success(address, "vera", now);
            is_free
        };
        assert_eq!((0..1_000).filter(|_| guess(now)).count(), 5);
        // The owner may mistype passwords between logins from this address, and guesses remain limited.
        let mut free = 0;
        for _ in 0..1_000 {
            now += Duration::from_secs(1);
            free += u32::from(guess(now));
            throttle.record_success(address, "admin", now);
        }
        assert!(free < 40, "{free}");
        // Expired attempts are not subtracted from the attempts of others.
        let throttle = LoginThrottle::default();
        throttle.record_failure(address, Some("vera"), now);
        now += ATTEMPT_TTL;
        (0..5).for_each(|_| throttle.record_failure(address, Some("admin"), now));
        throttle.record_success(address, "vera", now);
        assert_eq!(throttle.delay(address, "admin", now), Some(INITIAL_DELAY));
    }
}

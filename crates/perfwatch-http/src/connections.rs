//! Limits of open connections, in total and per address, and their number as a metric.

use ipnet::IpNet;
use perfwatch_auth::login_throttle::address_groups;
use perfwatch_model::limit_table;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Open connections of all listeners.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// Limits the number of open connections, in total and per address.
pub(crate) struct ConnectionLimiter {
    max: usize,
    max_per_address: usize,
    /// Trusted proxies are exempt from the limit per address.
    proxies: Vec<IpNet>,
    counts: Mutex<ConnectionCounts>,
}

/// Numbers of open connections.
#[derive(Default)]
struct ConnectionCounts {
    total: usize,
    /// By network and prefix length.
    by_group: HashMap<(IpAddr, u8), usize>,
}

/// Slot of an open connection.
pub(crate) struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
}

impl ConnectionLimiter {
    pub(crate) fn new(max: usize, max_per_address: usize, proxies: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { max, max_per_address, proxies, counts: Mutex::default() })
    }

    /// Slot for a connection of an address; `None` above a limit.
    pub(crate) fn try_acquire(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let address = address.to_canonical();
        let is_proxy = self.proxies.iter().any(|net| net.contains(&address));
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = address_groups(address).into_iter().flatten().any(|group| {
            let open = counts.by_group.get(&(group.network, group.prefix_len)).copied().unwrap_or_default();
            open >= self.max_per_address.saturating_mul(group.share as usize)
        });
        if is_full && !is_proxy {
            limit_table::CONNECTIONS_PER_ADDRESS.refuse();
            return None;
        }
        if counts.total >= self.max {
            limit_table::CONNECTIONS.refuse();
            return None;
        }
        counts.total += 1;
        for group in address_groups(address).into_iter().flatten() {
            *counts.by_group.entry((group.network, group.prefix_len)).or_default() += 1;
        }
        OPEN.fetch_add(1, Ordering::Relaxed);
        Some(ConnectionPermit { limiter: self.clone(), address })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
        let mut counts = self.limiter.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        for group in address_groups(self.address).into_iter().flatten() {
            let key = (group.network, group.prefix_len);
            let open = counts.by_group.get(&key).copied().unwrap_or_default();
            if open > 1 {
                counts.by_group.insert(key, open - 1);
            } else {
                counts.by_group.remove(&key);
            }
        }
    }
}

/// Collector of the number of open connections.
#[derive(Debug)]
pub struct ConnectionCollector;

impl Collector for ConnectionCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let open = ConstGauge::new(i64::try_from(OPEN.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
        let name = "perfwatch_http_connections_open";
        open.encode(encoder.encode_descriptor(name, "Open HTTP connections.", None, open.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn per_address_limit_is_enforced() {
        let limiter = ConnectionLimiter::new(5, 2, vec!["10.0.0.0/8".parse().unwrap()]);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = limiter.try_acquire(address("192.0.2.1"));
        let second = limiter.try_acquire(address("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(limiter.try_acquire(address("192.0.2.1")).is_none());
        let proxied: Vec<_> = (0..4).map(|_| limiter.try_acquire(address("10.0.0.1"))).collect();
        assert_eq!(proxied.iter().filter(|permit| permit.is_some()).count(), 3, "total limit");
        drop((first, second, proxied));
        assert!(limiter.try_acquire(address("192.0.2.1")).is_some());
        assert_eq!(limiter.counts.lock().unwrap().total, 0);
        assert!(limiter.counts.lock().unwrap().by_group.is_empty());
    }

    /// L5: a site with a /48 has 65,536 networks of 64 bits.
    #[test]
    fn connections_of_an_ipv6_site_are_limited() {
        let limiter = ConnectionLimiter::new(1_000, 2, Vec::new());
        let open = |network: u16| limiter.try_acquire(format!("2001:db8:0:{network:x}::1").parse().unwrap());
        let permits: Vec<_> = (0..1_000).filter_map(open).collect();
        assert_eq!(permits.len(), 2 * 16, "the share of a /48");
        let other = limiter.try_acquire("2001:db8:1::1".parse().unwrap());
        assert!(other.is_some());
        drop((permits, other));
        assert!(limiter.counts.lock().unwrap().by_group.is_empty());
    }
}

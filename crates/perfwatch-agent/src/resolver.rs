//! Name resolution of the hub with a cache. `ureq` resolves the name for every request, in a new thread, although
//! nearly all requests use the open connection.

use perfwatch_model::{Clock, SystemClock};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Time after which a name is resolved again, so that new connections follow a change of its addresses.
const ADDRESS_TTL: Duration = Duration::from_secs(60);

/// Resolver that caches the addresses of the last name; clones share the cache.
#[derive(Clone)]
pub(crate) struct CachingResolver {
    resolver: Arc<dyn Resolver>,
    clock: Arc<dyn Clock>,
    cache: Arc<Mutex<Option<CachedAddresses>>>,
}

struct CachedAddresses {
    uri: Uri,
    resolved_at: Duration,
    addresses: Vec<SocketAddr>,
}

impl Default for CachingResolver {
    fn default() -> Self {
        Self::new(Arc::new(DefaultResolver::default()), Arc::new(SystemClock::new()))
    }
}

impl std::fmt::Debug for CachingResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachingResolver").finish_non_exhaustive()
    }
}

impl CachingResolver {
    fn new(resolver: Arc<dyn Resolver>, clock: Arc<dyn Clock>) -> Self {
        Self { resolver, clock, cache: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<CachedAddresses>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties the cache after a request failed: the addresses may have changed.
    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }
}

impl Resolver for CachingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let now = self.clock.monotonic();
        let is_current = |cached: &&CachedAddresses| {
            cached.uri.scheme() == uri.scheme()
                && cached.uri.authority() == uri.authority()
                && now.saturating_sub(cached.resolved_at) < ADDRESS_TTL
        };
        if let Some(cached) = self.lock().as_ref().filter(is_current) {
            let mut addresses = self.empty();
            cached.addresses.iter().for_each(|address| addresses.push(*address));
            return Ok(addresses);
        }
        let addresses = self.resolver.resolve(uri, config, timeout)?;
        *self.lock() =
            Some(CachedAddresses { uri: uri.clone(), resolved_at: now, addresses: addresses.to_vec() });
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::ManualClock;
    use std::sync::atomic::{AtomicU16, Ordering};

    /// Resolver whose port is the number of calls.
    #[derive(Debug, Default)]
    struct CountingResolver(AtomicU16);

    impl Resolver for CountingResolver {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let mut addresses = self.empty();
            addresses.push(SocketAddr::from(([192, 0, 2, 1], self.0.fetch_add(1, Ordering::Relaxed) + 1)));
            Ok(addresses)
        }
    }

    #[test]
    fn addresses_are_cached_until_a_failure_or_their_age() {
        let clock = Arc::new(ManualClock::starting_at(0));
        let resolver = CachingResolver::new(Arc::new(CountingResolver::default()), clock.clone());
        let config = ureq::Agent::config_builder().build();
        let port = |uri: &str| {
            let timeout = NextTimeout {
                after: ureq::unversioned::transport::time::Duration::NotHappening,
                reason: ureq::Timeout::Resolve,
                per_read: None,
                per_write: None,
            };
            resolver.resolve(&uri.parse().unwrap(), &config, timeout).unwrap()[0].port()
        };
        assert_eq!(port("https://hub.example/ingest/metrics"), 1);
        assert_eq!(port("https://hub.example/api/v1/agents/enroll"), 1);
        assert_eq!(port("https://other.example/"), 2);
        assert_eq!(port("http://other.example/"), 3);
        resolver.clone().clear();
        assert_eq!([port("http://other.example/"), port("http://other.example/")], [4, 4]);
        clock.advance(ADDRESS_TTL);
        assert_eq!(port("http://other.example/"), 5);
    }
}

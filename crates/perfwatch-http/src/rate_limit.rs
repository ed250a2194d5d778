//! Rate limits (GCRA) per agent, token, account and anonymous address, so that a client above its limit
//! delays only itself. A limit for all ingest requests together is checked last.

use crate::error::ApiError;
use crate::read_limiter::{ReadLimiter, ReadPermit};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use perfwatch_auth::identity::{Identity, Principal};
use perfwatch_auth::login_throttle::address_groups;
use perfwatch_model::limit_table::{self, Limit};
use perfwatch_model::limits;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use uuid::Uuid;

/// Maximum numbers of requests per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitConfig {
    /// Limit of one agent: one request per tick, and more while it sends spooled snapshots.
    pub agent_per_second: u32,
    /// Limit of all ingest requests together.
    pub ingest_per_second: u32,
    /// Limit of one account, one token, or one anonymous address.
    pub api_per_second: u32,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self { agent_per_second: 20, ingest_per_second: 10_000, api_per_second: 100 }
    }
}

/// Rate limiters by kind of client. Clones share their limits and counts.
#[derive(Clone)]
pub struct RateLimiters {
    /// Limits on concurrent reads of history.
    pub reads: Arc<ReadLimiter>,
    limiters: Arc<RwLock<Arc<LimiterSet>>>,
    /// Test notifications, by the key of the share.
    channel_tests: Arc<DefaultKeyedRateLimiter<String>>,
    clock: DefaultClock,
}

/// Limiters of a configuration.
struct LimiterSet {
    agents: DefaultKeyedRateLimiter<Uuid>,
    /// Ingestion by API tokens and users: half of the common limit, because scripts may send for many hosts.
    tokens: DefaultKeyedRateLimiter<Uuid>,
    ingest: DefaultDirectRateLimiter,
    authenticated: DefaultKeyedRateLimiter<Uuid>,
    /// Requests without credentials, by address and by the IPv6 networks around it.
    anonymous: [DefaultKeyedRateLimiter<IpAddr>; 3],
}

/// Time after which an account may send another test notification beyond the burst.
const CHANNEL_TEST_PERIOD: Duration = Duration::from_secs(10);

/// Quota of test notifications.
fn channel_test_quota() -> Quota {
    let burst = NonZeroU32::new(limits::MAX_CHANNEL_TEST_BURST).unwrap_or(NonZeroU32::MIN);
    Quota::with_period(CHANNEL_TEST_PERIOD).map_or(Quota::per_minute(burst), |quota| quota.allow_burst(burst))
}

/// Quota with a burst of `burst_seconds` times the rate.
fn quota_per_second(rate: u32, burst_seconds: u32) -> Quota {
    let rate = NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN);
    let burst = rate.saturating_mul(NonZeroU32::new(burst_seconds).unwrap_or(NonZeroU32::MIN));
    Quota::per_second(rate).allow_burst(burst)
}

impl LimiterSet {
    fn new(limits: RateLimitConfig) -> Self {
        Self {
            agents: RateLimiter::keyed(quota_per_second(limits.agent_per_second, 5)),
            tokens: RateLimiter::keyed(quota_per_second(limits.ingest_per_second.div_ceil(2), 2)),
            ingest: RateLimiter::direct(quota_per_second(limits.ingest_per_second, 2)),
            authenticated: RateLimiter::keyed(quota_per_second(limits.api_per_second, 5)),
            anonymous: [1, 4, 16].map(|share| {
                RateLimiter::keyed(quota_per_second(limits.api_per_second.saturating_mul(share), 5))
            }),
        }
    }
}

impl RateLimiters {
    /// Limiters without any counted request.
    pub fn new(limits: RateLimitConfig) -> Self {
        Self {
            reads: Arc::default(),
            limiters: Arc::new(RwLock::new(Arc::new(LimiterSet::new(limits)))),
            channel_tests: Arc::new(RateLimiter::keyed(channel_test_quota())),
            clock: DefaultClock::default(),
        }
    }

    /// Replaces the limits. Counted requests are forgotten, so that each client may send a burst.
    pub fn set_limits(&self, limits: RateLimitConfig) {
        *self.limiters.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(LimiterSet::new(limits));
    }

    fn limiters(&self) -> Arc<LimiterSet> {
        self.limiters.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn too_many_requests(&self, limit: &Limit, until: &NotUntil<governor::clock::QuantaInstant>) -> ApiError {
        limit.refuse();
        let wait = until.wait_time_from(self.clock.now());
        ApiError::too_many("rate limit exceeded", wait)
    }

    /// Counts an ingest request.
    ///
    /// # Errors
    /// Returns `too_many_requests` above the client's limit or the common limit.
    pub fn check_ingest(&self, identity: &Identity) -> Result<(), ApiError> {
        let limiters = self.limiters();
        let (limit, client_result) = match &identity.principal {
            Principal::Agent { id, .. } => (&limit_table::AGENT_REQUESTS, limiters.agents.check_key(id)),
            Principal::Token { id, .. } | Principal::Account { id, .. } => {
                (&limit_table::INGEST_CLIENT_REQUESTS, limiters.tokens.check_key(id))
            }
            Principal::EmbeddedAgent => (&limit_table::AGENT_REQUESTS, Ok(())),
        };
        client_result.map_err(|until| self.too_many_requests(limit, &until))?;
        let common = limiters.ingest.check();
        common.map_err(|until| self.too_many_requests(&limit_table::INGEST_REQUESTS, &until))
    }

    /// Counts a request of an authenticated caller.
    ///
    /// # Errors
    /// Returns `too_many_requests` above the caller's limit.
    pub fn check_authenticated(&self, identity: &Identity) -> Result<(), ApiError> {
        let id = match &identity.principal {
            Principal::Account { id, .. } | Principal::Token { id, .. } | Principal::Agent { id, .. } => *id,
            Principal::EmbeddedAgent => Uuid::nil(),
        };
        let result = self.limiters().authenticated.check_key(&id);
        result.map_err(|until| self.too_many_requests(&limit_table::API_REQUESTS, &until))
    }

    /// Counts a test notification. The returned permit bounds the tests at the same time.
    ///
    /// # Errors
    /// Returns `too_many_requests` above the limit of the account, and `busy` if others do not end.
    pub async fn begin_channel_test(&self, identity: &Identity) -> Result<Arc<ReadPermit>, ApiError> {
        let result = self.channel_tests.check_key(&identity.share_key());
        result.map_err(|until| self.too_many_requests(&limit_table::CHANNEL_TESTS, &until))?;
        self.reads.begin(identity).await
    }

    /// Counts a request without credentials.
    ///
    /// # Errors
    /// Returns `too_many_requests` above the limit of the address.
    pub fn check_anonymous(&self, address: IpAddr) -> Result<(), ApiError> {
        let limiters = self.limiters();
        for (group, limiter) in address_groups(address).into_iter().zip(&limiters.anonymous) {
            if let Some(group) = group {
                let result = limiter.check_key(&group.network);
                result.map_err(|until| self.too_many_requests(&limit_table::ANONYMOUS_REQUESTS, &until))?;
            }
        }
        Ok(())
    }

    /// Drops the state of clients without recent requests.
    pub fn prune(&self) {
        let limiters = self.limiters();
        limiters.agents.retain_recent();
        limiters.tokens.retain_recent();
        limiters.authenticated.retain_recent();
        limiters.anonymous.iter().for_each(RateLimiter::retain_recent);
        self.channel_tests.retain_recent();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_auth::identity::Credential;
    use perfwatch_model::HostId;

    /// Second review: tests of channels that hang took all threads of reads.
    #[tokio::test]
    async fn test_notifications_are_bounded_per_account() {
        let limits = RateLimiters::new(RateLimitConfig::default());
        let user = |name: &str| {
            let principal = Principal::Token {
                id: Uuid::new_v4(),
                name: name.into(),
                account: Uuid::from_u128(name.len() as u128),
                account_name: name.into(),
            };
            Identity::for_ingest(principal, Credential::Bearer(String::new()))
        };
        for n in 0..limits::MAX_CHANNEL_TEST_BURST {
            assert!(limits.begin_channel_test(&user("alice")).await.is_ok(), "{n}");
        }
        let refused = limits.begin_channel_test(&user("alice")).await.unwrap_err();
        assert_eq!(refused.code(), "too_many_requests");
        assert!(limits.begin_channel_test(&user("bob")).await.is_ok());
    }

    #[test]
    fn rate_limit_affects_only_the_offender() {
        let limits = RateLimiters::new(RateLimitConfig {
            agent_per_second: 2,
            ingest_per_second: 1_000,
            api_per_second: 1,
        });
        let agent = || {
            let principal = Principal::Agent { id: Uuid::new_v4(), host: HostId::generate() };
            Identity::for_ingest(principal, Credential::Bearer(String::new()))
        };
        let (offender, other) = (agent(), agent());
        let rejected = (0..200).filter(|_| limits.check_ingest(&offender).is_err()).count();
        assert!((180..=190).contains(&rejected), "{rejected}");
        assert!((0..10).all(|_| limits.check_ingest(&other).is_ok()));
        // Requests above a client's own limit do not count for the common limit.
        let accepted = (0..3_000).filter(|_| limits.check_ingest(&agent()).is_ok()).count();
        assert!((1_900..=2_300).contains(&accepted), "{accepted}");
        limits.set_limits(RateLimitConfig::default());
        assert!(limits.check_ingest(&offender).is_ok(), "the new limits apply at once");
    }
}

//! How often one may come: each agent, each script and each address has a bucket of its own
//! (GCRA), so that one that comes too often only holds up itself; all senders together have one
//! more, which is asked last.

use crate::error::ApiError;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use perfwatch_auth::identity::{Identity, Principal};
use std::net::IpAddr;
use std::num::NonZeroU32;
use uuid::Uuid;

/// Requests a second.
#[derive(Debug, Clone, Copy)]
pub struct RateLimitConfig {
    /// Of one agent. It needs one a tick, and some more when it catches up.
    pub agent_per_second: u32,
    /// Of all senders together.
    pub ingest_per_second: u32,
    /// Of one account or token, and of one address that is nobody's.
    pub api_per_second: u32,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self { agent_per_second: 20, ingest_per_second: 10_000, api_per_second: 100 }
    }
}

/// The buckets.
pub(crate) struct RateLimiters {
    agents: DefaultKeyedRateLimiter<Uuid>,
    /// A script may send for a fleet, but leaves others their half.
    tokens: DefaultKeyedRateLimiter<Uuid>,
    ingest: DefaultDirectRateLimiter,
    authenticated: DefaultKeyedRateLimiter<Uuid>,
    anonymous: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

fn quota_per_second(most: u32, seconds_at_once: u32) -> Quota {
    let most = NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN);
    let burst = most.saturating_mul(NonZeroU32::new(seconds_at_once).unwrap_or(NonZeroU32::MIN));
    Quota::per_second(most).allow_burst(burst)
}

impl RateLimiters {
    pub(crate) fn new(limits: RateLimitConfig) -> Self {
        Self {
            agents: RateLimiter::keyed(quota_per_second(limits.agent_per_second, 5)),
            tokens: RateLimiter::keyed(quota_per_second(limits.ingest_per_second.div_ceil(2), 2)),
            ingest: RateLimiter::direct(quota_per_second(limits.ingest_per_second, 2)),
            authenticated: RateLimiter::keyed(quota_per_second(limits.api_per_second, 5)),
            anonymous: RateLimiter::keyed(quota_per_second(limits.api_per_second, 5)),
            clock: DefaultClock::default(),
        }
    }

    fn too_many_requests(&self, until: &NotUntil<governor::clock::QuantaInstant>) -> ApiError {
        let wait = until.wait_time_from(self.clock.now());
        ApiError::too_many("rate limit exceeded", wait)
    }

    /// Someone who sends.
    pub(crate) fn check_ingest(&self, identity: &Identity) -> Result<(), ApiError> {
        let own = match &identity.principal {
            Principal::Agent { id, .. } => self.agents.check_key(id),
            Principal::Token { id, .. } | Principal::Account { id, .. } => self.tokens.check_key(id),
            Principal::EmbeddedAgent => Ok(()),
        };
        own.and_then(|()| self.ingest.check()).map_err(|until| self.too_many_requests(&until))
    }

    /// Someone we know.
    pub(crate) fn check_authenticated(&self, identity: &Identity) -> Result<(), ApiError> {
        let id = match &identity.principal {
            Principal::Account { id, .. } | Principal::Token { id, .. } | Principal::Agent { id, .. } => *id,
            Principal::EmbeddedAgent => Uuid::nil(),
        };
        self.authenticated.check_key(&id).map_err(|until| self.too_many_requests(&until))
    }

    /// Anyone else.
    pub(crate) fn check_anonymous(&self, address: IpAddr) -> Result<(), ApiError> {
        self.anonymous
            .check_key(&perfwatch_auth::login_throttle::address_group(address))
            .map_err(|until| self.too_many_requests(&until))
    }

    /// Forgets who has not come for long.
    pub(crate) fn prune(&self) {
        self.agents.retain_recent();
        self.tokens.retain_recent();
        self.authenticated.retain_recent();
        self.anonymous.retain_recent();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_auth::identity::Credential;
    use perfwatch_model::HostId;

    #[test]
    fn rate_limit_affects_only_the_offender() {
        let limits = RateLimiters::new(RateLimitConfig {
            agent_per_second: 2,
            ingest_per_second: 1_000,
            api_per_second: 1,
        });
        let agent = || {
            let who = Principal::Agent { id: Uuid::new_v4(), host: HostId::generate() };
            Identity::for_ingest(who, Credential::Bearer(String::new()))
        };
        let (one, other) = (agent(), agent());
        let refused = (0..200).filter(|_| limits.check_ingest(&one).is_err()).count();
        assert!((180..=190).contains(&refused), "{refused}");
        assert!((0..10).all(|_| limits.check_ingest(&other).is_ok()));
        // All together: what is refused before it gets there does not count.
        let many = (0..3_000).filter(|_| limits.check_ingest(&agent()).is_ok()).count();
        assert!((1_900..=2_300).contains(&many), "{many}");
    }
}

//! How often one may come: each agent, each script and each address has a bucket of its own
//! (GCRA), so that one that comes too often only holds up itself; all senders together have one
//! more, which is asked last.

use super::identity::{Identity, Who};
use crate::error::ApiError;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use std::net::IpAddr;
use std::num::NonZeroU32;
use uuid::Uuid;

/// Requests a second.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Of one agent. It needs one a tick, and some more when it catches up.
    pub agent: u32,
    /// Of all senders together.
    pub ingest: u32,
    /// Of one account or token, and of one address that is nobody's.
    pub api: u32,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { agent: 20, ingest: 10_000, api: 100 }
    }
}

/// The buckets.
pub(crate) struct Limits {
    agents: DefaultKeyedRateLimiter<Uuid>,
    /// A script may send for a fleet, but leaves others their half.
    scripts: DefaultKeyedRateLimiter<Uuid>,
    ingest: DefaultDirectRateLimiter,
    known: DefaultKeyedRateLimiter<Uuid>,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

fn a_second(most: u32, seconds_at_once: u32) -> Quota {
    let most = NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN);
    let burst = most.saturating_mul(NonZeroU32::new(seconds_at_once).unwrap_or(NonZeroU32::MIN));
    Quota::per_second(most).allow_burst(burst)
}

impl Limits {
    pub(crate) fn new(limits: RequestLimits) -> Self {
        Self {
            agents: RateLimiter::keyed(a_second(limits.agent, 5)),
            scripts: RateLimiter::keyed(a_second(limits.ingest.div_ceil(2), 2)),
            ingest: RateLimiter::direct(a_second(limits.ingest, 2)),
            known: RateLimiter::keyed(a_second(limits.api, 5)),
            addresses: RateLimiter::keyed(a_second(limits.api, 5)),
            clock: DefaultClock::default(),
        }
    }

    fn refuse(&self, until: &NotUntil<governor::clock::QuantaInstant>) -> ApiError {
        let wait = until.wait_time_from(self.clock.now());
        ApiError::too_many("too many requests; come again later", wait)
    }

    /// Someone who sends.
    pub(crate) fn sender(&self, identity: &Identity) -> Result<(), ApiError> {
        let own = match &identity.who {
            Who::Agent { id, .. } => self.agents.check_key(id),
            Who::Token { id, .. } | Who::Account { id, .. } => self.scripts.check_key(id),
            Who::OwnAgent => Ok(()),
        };
        own.and_then(|()| self.ingest.check()).map_err(|until| self.refuse(&until))
    }

    /// Someone we know.
    pub(crate) fn known(&self, identity: &Identity) -> Result<(), ApiError> {
        let id = match &identity.who {
            Who::Account { id, .. } | Who::Token { id, .. } | Who::Agent { id, .. } => *id,
            Who::OwnAgent => Uuid::nil(),
        };
        self.known.check_key(&id).map_err(|until| self.refuse(&until))
    }

    /// Anyone else.
    pub(crate) fn stranger(&self, address: IpAddr) -> Result<(), ApiError> {
        self.addresses.check_key(&super::throttle::network(address)).map_err(|until| self.refuse(&until))
    }

    /// Forgets who has not come for long.
    pub(crate) fn prune(&self) {
        self.agents.retain_recent();
        self.scripts.retain_recent();
        self.known.retain_recent();
        self.addresses.retain_recent();
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Credential;
    use super::*;
    use perfwatch_model::HostId;

    #[test]
    fn who_comes_too_often_holds_up_itself_alone() {
        let limits = Limits::new(RequestLimits { agent: 2, ingest: 1_000, api: 1 });
        let agent = || {
            let who = Who::Agent { id: Uuid::new_v4(), host: HostId::generate() };
            Identity::sender(who, Credential::Bearer(String::new()))
        };
        let (one, other) = (agent(), agent());
        let refused = (0..200).filter(|_| limits.sender(&one).is_err()).count();
        assert!((180..=190).contains(&refused), "{refused}");
        assert!((0..10).all(|_| limits.sender(&other).is_ok()));
        // All together: what is refused before it gets there does not count.
        let many = (0..3_000).filter(|_| limits.sender(&agent()).is_ok()).count();
        assert!((1_900..=2_300).contains(&many), "{many}");
    }
}

//! Enrollment of agents: which hosts an enrollment token may be used for. The rules are in
//! `docs/IDENTITY.md`.

use crate::secret::hash_secret;
use perfwatch_model::HostId;
use perfwatch_store::accounts::SecretHash;
use perfwatch_store::agents::{Agent, EnrollmentToken};

/// Enrollment of an agent for a host.
#[derive(Debug)]
pub struct HostClaim<'a> {
    /// Host that the agent will send for.
    pub host: HostId,
    /// Enrollment token of the agent.
    pub token: &'a EnrollmentToken,
    /// Secret of an earlier enrollment of the host, if the agent has one.
    pub previous_secret: Option<&'a str>,
    /// Agents that enrolled for the host, also revoked ones, each with the time of its last request.
    pub agents: &'a [(&'a Agent, i64)],
    /// Whether the host sent snapshots.
    pub is_known_host: bool,
}

/// Accepted claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptedClaim {
    /// Takes a use of the token.
    First,
    /// The response of an earlier attempt got lost: takes no use of the token.
    Retry,
}

/// Reason for the rejection of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The token has no uses left, or expired.
    #[error("invalid or expired enrollment token")]
    InvalidToken,
    /// The token was created for another host.
    #[error("the enrollment token is for another host")]
    OtherHost,
    /// The host exists, and the claim does not show that the agent is the same.
    #[error(
        "this host exists; create an enrollment token for it to enroll it again. \
         If this machine is a clone, delete its host-id file"
    )]
    KnownHost,
}

impl HostClaim<'_> {
    /// Hash of the previous secret if an agent of the host has it, for a repeated claim whose response got lost.
    pub fn known_secret(&self) -> Option<SecretHash> {
        let hash = self.previous_secret.map(hash_secret)?;
        let is_known = |agent: &Agent| agent.hash == hash || agent.previous_hash == Some(hash);
        self.agents.iter().any(|(agent, _)| is_known(agent)).then_some(hash)
    }

    /// Checks that the agent may take the host: a new host, a host that the token was created for by a user who
    /// may revoke its agents, or a host of which the agent has an earlier secret.
    ///
    /// # Errors
    /// Returns the reason of the rejection.
    pub fn check(&self, now_ms: i64) -> Result<AcceptedClaim, ClaimError> {
        let hash = self.previous_secret.map(hash_secret);
        // The token of the earlier enrollment does not undo a revocation.
        let is_undo =
            |agent: &Agent| agent.revoked_ms.is_some() && agent.enrollment_token_id == Some(self.token.id);
        // The agent of the earlier attempt never sent a snapshot.
        let is_pending = |agent: &Agent, last_seen_ms: i64| {
            agent.enrollment_token_id == Some(self.token.id)
                && agent.revoked_ms.is_none()
                && last_seen_ms == 0
        };
        // The secret before the last enrollment counts only until the agent has received the response: a thief
        // may know it.
        let has_secret = |agent: &Agent, last_seen_ms: i64| {
            hash.is_some()
                && (hash == Some(agent.hash) && !is_undo(agent)
                    || hash == agent.previous_hash && is_pending(agent, last_seen_ms))
        };
        let any = |has: &dyn Fn(&Agent, i64) -> bool| {
            self.agents.iter().any(|(agent, last_seen_ms)| has(agent, *last_seen_ms))
        };
        let has_right = self.token.host == Some(self.host) || any(&has_secret);
        let is_pending = any(&is_pending);
        let is_retry = is_pending && (has_right || !self.is_known_host);
        if (self.token.uses_left <= 0 && !is_retry) || self.token.expires_ms <= now_ms {
            return Err(ClaimError::InvalidToken);
        }
        if self.token.host.is_some_and(|host| host != self.host) {
            return Err(ClaimError::OtherHost);
        }
        if is_retry {
            return Ok(AcceptedClaim::Retry);
        }
        if !has_right && (self.is_known_host || !self.agents.is_empty()) {
            return Err(ClaimError::KnownHost);
        }
        Ok(AcceptedClaim::First)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const NOW_MS: i64 = 1_000;

    fn token(number: u128, uses_left: i64, host: Option<HostId>) -> EnrollmentToken {
        EnrollmentToken {
            id: Uuid::from_u128(number),
            hash: [0; 32],
            name: "agents".to_owned(),
            tags: Vec::new(),
            uses_left,
            created_by: "user alice".to_owned(),
            created_by_token: None,
            created_ms: 10,
            expires_ms: 2_000,
            host,
        }
    }

    fn agent(host: HostId, token: Option<u128>, secret: &str) -> Agent {
        Agent {
            id: Uuid::from_u128(7),
            hash: hash_secret(secret),
            host,
            enrollment_token: "agents".to_owned(),
            enrollment_token_id: token.map(Uuid::from_u128),
            previous_hash: None,
            address: "192.0.2.1".to_owned(),
            created_ms: 20,
            last_seen_ms: 0,
            revoked_ms: None,
        }
    }

    /// Finding M4.
    #[test]
    fn claim_of_a_known_host_needs_its_token_or_secret() {
        let host = HostId::from_bytes(&[1; 16]).unwrap();
        let other = HostId::from_bytes(&[2; 16]).unwrap();
        let current = agent(host, Some(9), "secret");
        let revoked = Agent { revoked_ms: Some(30), ..current.clone() };
        let moved =
            Agent { hash: hash_secret("new"), previous_hash: Some(hash_secret("secret")), ..current.clone() };
        let check =
            |token: &EnrollmentToken, agent: Option<(&Agent, i64)>, is_known_host, previous_secret| {
                let agents: Vec<_> = agent.into_iter().collect();
                HostClaim { host, token, previous_secret, agents: &agents, is_known_host }.check(NOW_MS)
            };
        let (open, bound, foreign) = (token(1, 5, None), token(1, 1, Some(host)), token(1, 1, Some(other)));
        // Whether the agent is silent, revoked or never seen, and whether an agent is known at all.
        for agent in
            [Some((&current, 500)), Some((&current, 0)), Some((&revoked, 500)), Some((&moved, 0)), None]
        {
            for (is_known_host, previous) in [(true, None), (true, Some("guess")), (false, None)] {
                let expected = if is_known_host || agent.is_some() {
                    Err(ClaimError::KnownHost)
                } else {
                    Ok(AcceptedClaim::First)
                };
                assert_eq!(check(&open, agent, is_known_host, previous), expected, "{agent:?} {previous:?}");
                assert_eq!(check(&bound, agent, is_known_host, previous), Ok(AcceptedClaim::First));
                assert_eq!(check(&foreign, agent, is_known_host, previous), Err(ClaimError::OtherHost));
            }
            // Sibling of finding M4: a secret from before the last enrollment, which may be stolen and revoked.
            let expected = match agent {
                Some((agent, _)) if agent.previous_hash.is_none() => Ok(AcceptedClaim::First),
                _ => Err(ClaimError::KnownHost),
            };
            assert_eq!(check(&open, agent, true, Some("secret")), expected, "{agent:?}");
        }
        let same = token(9, 5, None);
        assert_eq!(check(&same, Some((&revoked, 500)), true, Some("secret")), Err(ClaimError::KnownHost));
        assert_eq!(check(&same, Some((&current, 500)), true, Some("secret")), Ok(AcceptedClaim::First));
        let expired = EnrollmentToken { expires_ms: NOW_MS, ..open };
        assert_eq!(check(&expired, None, false, None), Err(ClaimError::InvalidToken));
    }

    /// Finding M4: a used-up token took a host again whose agent enrolled with a token of the same name.
    #[test]
    fn claim_is_repeated_with_the_same_token_only() {
        let host = HostId::from_bytes(&[1; 16]).unwrap();
        let used_up = token(1, 0, None);
        let check = |agent: &Agent, last_seen_ms, is_known_host, previous_secret| {
            let agents = [(agent, last_seen_ms)];
            let claim = HostClaim { host, token: &used_up, previous_secret, agents: &agents, is_known_host };
            claim.check(NOW_MS)
        };
        let invalid = Err(ClaimError::InvalidToken);
        let own = agent(host, Some(1), "secret");
        assert_eq!(check(&own, 0, false, None), Ok(AcceptedClaim::Retry));
        assert_eq!(check(&own, 500, false, None), invalid, "the agent has received the response");
        assert_eq!(
            check(&agent(host, Some(2), "secret"), 0, false, None),
            invalid,
            "a token of the same name"
        );
        assert_eq!(
            check(&agent(host, None, "secret"), 0, false, None),
            invalid,
            "an agent of an earlier version"
        );
        assert_eq!(check(&Agent { revoked_ms: Some(30), ..own.clone() }, 0, false, None), invalid);
        // A restarted hub may not know when the agent was last seen, but it knows the host.
        assert_eq!(check(&own, 0, true, None), invalid);
        // The lost response was that of a host that enrolled again with its secret.
        let again = Agent { previous_hash: Some(hash_secret("old")), ..own };
        assert_eq!(check(&again, 0, true, Some("old")), Ok(AcceptedClaim::Retry));
        assert_eq!(check(&again, 500, true, Some("old")), invalid);
        let agents = [(&again, 500)];
        let known = |previous_secret| {
            HostClaim { host, token: &used_up, previous_secret, agents: &agents, is_known_host: true }
                .known_secret()
        };
        assert_eq!(known(Some("old")), Some(hash_secret("old")));
        assert_eq!(known(Some("secret")), Some(hash_secret("secret")));
        assert_eq!((known(Some("guess")), known(None)), (None, None));
    }
}

//! Right of a request to its route. The body of a request may arrive, and its work may wait, long after the
//! headers were checked: each change checks the right again before its commit.

use crate::access::{self, Accepts, Access};
use crate::confirmation::{self, Confirmation};
use crate::directory::AuthDirectory;
use crate::error::AuthError;
use crate::identity::{self, Credential, Identity};
use std::sync::Arc;

/// Access of a route that was granted to an identity, with everything that is needed to check it again.
#[derive(Clone)]
pub struct Grant {
    directory: Arc<AuthDirectory>,
    identity: Identity,
    access: Access,
    accepts: Accepts,
    /// Confirmation cookies of the request.
    confirmations: Vec<String>,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Grant({:?}, {:?})", self.access, self.accepts)
    }
}

impl Grant {
    /// Grant of a request that [`access::authorize`] accepted.
    pub fn new(
        directory: Arc<AuthDirectory>,
        identity: Identity,
        (access, accepts): (Access, Accepts),
        confirmations: &[&str],
    ) -> Self {
        let confirmations = confirmations.iter().map(|cookie| (*cookie).to_owned()).collect();
        Self { directory, identity, access, accepts, confirmations }
    }

    /// Identity of the request.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn directory(&self) -> &AuthDirectory {
        &self.directory
    }

    /// Checks that the identity has the same rights as when the request arrived, so that its checks still hold.
    ///
    /// # Errors
    /// Returns the reason if the credential ended, its access or confirmation does not suffice any more, and
    /// [`AuthError::Conflict`] if its role or hosts changed.
    pub fn recheck(&self) -> Result<(), AuthError> {
        let current = identity::resolve(&self.directory, &self.identity.credential)?;
        let confirmation = match &current.credential {
            Credential::Session(hash) => {
                let cookies: Vec<&str> = self.confirmations.iter().map(String::as_str).collect();
                confirmation::of_session(&self.directory, hash, &cookies)
            }
            Credential::Bearer(_) | Credential::WebSocketToken(_) => Confirmation::None,
        };
        let current = Identity { confirmation, ..current };
        access::authorize(self.access, self.accepts, Some(&current))?;
        let rights =
            |identity: &Identity| (identity.principal.clone(), identity.role, identity.host_tags.clone());
        if rights(&current) == rights(&self.identity) { Ok(()) } else { Err(AuthError::Conflict) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{RouteMatch, match_route};
    use crate::actor::Actor;
    use crate::client_addr::ClientAddr;
    use crate::identity::{RequestCredentials, identify};
    use crate::secret;
    use crate::test_directory::{COOKIE, change, open};
    use perfwatch_model::ManualClock;
    use perfwatch_store::Transaction;
    use perfwatch_store::accounts::{Account, Role};
    use std::net::IpAddr;
    use std::time::Duration;

    fn actor(directory: &Arc<AuthDirectory>, method: &str, path: &str) -> Actor {
        let request = RequestCredentials { session_cookies: &[COOKIE], ..RequestCredentials::default() };
        let identity = identify(directory, request).unwrap().unwrap();
        let RouteMatch::Matched(access, accepts) = match_route(method, path) else { panic!("{path}") };
        access::authorize(access, accepts, Some(&identity)).unwrap();
        let client_addr = ClientAddr { address: IpAddr::from([192, 0, 2, 1]), is_tls: true };
        Actor::new(Grant::new(directory.clone(), identity, (access, accepts), &[]), client_addr)
    }

    /// F19 (second review): the write lock is given for the rights of now, not for those of the headers.
    #[tokio::test]
    async fn write_lock_is_refused_after_rights_changed() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::starting_at(0));
        let (directory, account) = open(&clock, folder.path()).await;
        let begin = async |actor: &Actor| directory.begin_write(actor).await.map(drop);
        let rules = actor(&directory, "POST", "/api/v1/rules");
        let channels = actor(&directory, "POST", "/api/v1/channels");
        assert_eq!((begin(&rules).await, begin(&channels).await), (Ok(()), Ok(())));
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(begin(&channels).await, Err(AuthError::ConfirmationRequired), "no recent login");
        assert_eq!(begin(&rules).await, Ok(()));
        let limited = Account { host_tags: vec!["team=a".to_owned()], ..account.clone() };
        change(&directory, Transaction::build(|tx| tx.accounts().update(&limited))).await;
        assert_eq!(begin(&rules).await, Err(AuthError::Conflict), "other hosts");
        let viewer = Account { role: Role::Viewer, ..account.clone() };
        change(&directory, Transaction::build(|tx| tx.accounts().update(&viewer))).await;
        assert!(matches!(begin(&rules).await, Err(AuthError::Forbidden(_))));
        let restored = Account { role: Role::Admin, ..account };
        change(&directory, Transaction::build(|tx| tx.accounts().update(&restored))).await;
        assert_eq!(begin(&rules).await, Ok(()));
        change(&directory, Transaction::build(|tx| tx.sessions().delete(&secret::hash_secret(COOKIE)))).await;
        assert_eq!(begin(&rules).await, Err(AuthError::SessionExpired));
        assert_eq!(
            rules.record(rules.audit("channel.test", String::new())).await,
            Err(AuthError::SessionExpired)
        );
    }
}

//! Shares of an identity: keys under which its use of resources is counted, and how much of the hub it may fill.

use crate::identity::{Identity, Principal};
use perfwatch_store::accounts::Role;

impl Identity {
    /// Key of the shares of the principal: tokens share with their account.
    pub fn share_key(&self) -> String {
        self.account_id().map_or_else(|| self.actor_name(), |account| format!("account {account}"))
    }

    /// Number of objects of a kind up to which the identity may create more, of a maximum for the whole hub. The last
    /// quarter is left to administrators of all hosts, who can also delete what fills the rest.
    pub fn max_objects(&self, max: usize) -> usize {
        match self.role == Some(Role::Admin) && self.host_tags.is_empty() {
            true => max,
            false => max - max / 4,
        }
    }

    /// Key of the shares of new hosts that the identity creates by sending for them: each token has its own.
    pub fn creator_key(&self) -> String {
        match &self.principal {
            Principal::Token { id, .. } => format!("token {id}"),
            _ => self.share_key(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Credential;

    #[test]
    fn last_quarter_is_left_to_administrators_of_all_hosts() {
        let identity = |role, host_tags: &[&str]| Identity {
            role,
            host_tags: host_tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..Identity::for_ingest(Principal::EmbeddedAgent, Credential::Bearer(String::new()))
        };
        for (role, host_tags, expected) in [
            (Some(Role::Admin), &[][..], 500),
            (Some(Role::Admin), &["team=a"][..], 375),
            (Some(Role::Operator), &[][..], 375),
            (None, &[][..], 375),
        ] {
            assert_eq!(identity(role, host_tags).max_objects(500), expected, "{role:?} {host_tags:?}");
        }
    }
}

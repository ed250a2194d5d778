//! Content of a status page: groups of hosts and the values that the page shows. Its limits, and the state of a page.

use crate::announcement::{self, Announcement};
use perfwatch_auth::directory::AuthSnapshot;
use perfwatch_auth::snapshot::limit_includes;
use perfwatch_http::{ApiError, params};
use perfwatch_model::{HostId, limits};
use perfwatch_store::accounts::{Account, Role};
use perfwatch_store::status_pages::StatusPage;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Maximum number of groups of a page.
const MAX_GROUPS: usize = 20;
/// Maximum length of the description of a page.
const MAX_DESCRIPTION_BYTES: usize = 1_000;
/// Maximum time until the link of a page expires.
const MAX_LIFETIME_MS: i64 = 366 * 86_400_000;

/// Current value of each host that a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StatusMetric {
    /// CPU usage in percent.
    Cpu,
    /// Used memory in percent.
    Memory,
    /// Used share of the fullest filesystem in percent, without its name.
    Disk,
    /// Load average of the last minute.
    Load,
    /// Received and transmitted bytes per second.
    Network,
}

/// Host of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusHost {
    /// Id of the host, which visitors do not see.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Uuid))]
    pub host: HostId,
    /// Name that visitors see; 1 to 100 bytes.
    pub name: String,
}

/// Group of hosts of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusGroup {
    /// Heading of the group; 1 to 100 bytes.
    pub name: String,
    /// Hosts in the order in which the page shows them.
    pub hosts: Vec<StatusHost>,
}

/// Content of a page, as stored and as requests and responses contain it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusContent {
    /// Text below the title, without markup; at most 1,000 bytes.
    #[serde(default)]
    pub description: String,
    /// Groups of hosts, at most 20 with 50 hosts together.
    pub groups: Vec<StatusGroup>,
    /// Values that the page shows; none by default.
    #[serde(default)]
    pub metrics: Vec<StatusMetric>,
    /// Shows open incidents as severity and display names, and degraded hosts.
    #[serde(default)]
    pub incidents: bool,
    /// Texts of operators for visitors, at most 5, in the order in which the page shows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announcements: Vec<Announcement>,
}

/// State of the link of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PageState {
    /// Visitors see the page.
    Active,
    /// Switched off.
    Disabled,
    /// Past its expiry.
    Expired,
    /// The account that answers for the page was disabled, deleted, lost rights or changed its password, or its API
    /// token ended. A new link ends this.
    Ended,
}

/// Account that answers for a page, while its rights suffice.
pub(crate) fn valid_owner<'a>(page: &StatusPage, snapshot: &'a AuthSnapshot) -> Option<&'a Account> {
    let account = snapshot.enabled_account(page.owner)?;
    let has_token = |id| snapshot.tokens.values().any(|token| token.id == id);
    let is_valid = account.role >= Role::Operator
        && account.token_epoch == page.owner_epoch
        && page.owner_token.is_none_or(has_token);
    is_valid.then_some(account)
}

/// State of a page at a time.
pub(crate) fn page_state(page: &StatusPage, snapshot: &AuthSnapshot, now_ms: i64) -> PageState {
    if valid_owner(page, snapshot).is_none() {
        PageState::Ended
    } else if page.expires_ms <= now_ms {
        PageState::Expired
    } else if page.enabled {
        PageState::Active
    } else {
        PageState::Disabled
    }
}

/// Returns whether an account may view a host.
pub(crate) fn can_view(account: &Account, snapshot: &AuthSnapshot, host: HostId) -> bool {
    limit_includes(&account.host_tags, snapshot.host_tags(host))
}

impl StatusContent {
    /// Reads the content of a stored page; `None` if a newer hub stored what this version does not know.
    pub(crate) fn parse(page: &StatusPage) -> Option<Self> {
        let content = serde_json::from_str(&page.body);
        content
            .inspect_err(|error| tracing::warn!(%error, page = %page.id, "stored status page is unreadable"))
            .ok()
    }

    /// All hosts of the page.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &StatusHost> {
        self.groups.iter().flat_map(|group| &group.hosts)
    }

    /// Content without hosts that do not exist.
    pub(crate) fn retain_hosts(mut self, exists: impl Fn(HostId) -> bool) -> Self {
        self.groups.iter_mut().for_each(|group| group.hosts.retain(|host| exists(host.host)));
        self
    }

    /// Validates texts and numbers, and removes white space around texts. `is_visible` returns whether the caller
    /// may view a host that exists.
    pub(crate) fn validate(
        mut self,
        now_ms: i64,
        is_visible: impl Fn(HostId) -> bool,
    ) -> Result<Self, ApiError> {
        announcement::validate(&mut self.announcements, now_ms).map_err(invalid)?;
        self.description = params::validate_comment(&self.description, MAX_DESCRIPTION_BYTES)
            .map_err(|error| invalid(format!("description: {}", error.message())))?;
        if self.groups.len() > MAX_GROUPS {
            return Err(invalid(format!("groups: at most {MAX_GROUPS} are allowed")));
        }
        let max_hosts = limits::MAX_STATUS_PAGE_HOSTS;
        if !(1..=max_hosts).contains(&self.hosts().count()) {
            return Err(invalid(format!("groups: expected 1 to {max_hosts} hosts together")));
        }
        let mut seen = HashSet::new();
        for (at, group) in self.groups.iter_mut().enumerate() {
            group.name = validate_name(&group.name, &format!("groups[{at}].name"))?;
            for (index, host) in group.hosts.iter_mut().enumerate() {
                let path = format!("groups[{at}].hosts[{index}]");
                host.name = validate_name(&host.name, &format!("{path}.name"))?;
                if !is_visible(host.host) {
                    return Err(invalid(format!("{path}.host: host not found")));
                }
                if !seen.insert(host.host) {
                    return Err(invalid(format!("{path}.host: duplicate entry")));
                }
            }
        }
        self.metrics.sort_unstable();
        self.metrics.dedup();
        Ok(self)
    }
}

/// Error of a field of a page.
fn invalid(message: String) -> ApiError {
    ApiError::unprocessable("invalid_status_page", message)
}

fn validate_name(name: &str, path: &str) -> Result<String, ApiError> {
    params::validate_label(name).map_err(|_| invalid(format!("{path}: must have 1 to 100 bytes")))
}

/// Validates the title of a page.
pub(crate) fn validate_title(title: &str) -> Result<String, ApiError> {
    validate_name(title, "title")
}

/// Validates the expiry of a link.
pub(crate) fn validate_expiry(expires_ms: i64, now_ms: i64) -> Result<(), ApiError> {
    let is_valid = expires_ms > now_ms && expires_ms - now_ms <= MAX_LIFETIME_MS;
    match is_valid {
        true => Ok(()),
        false => Err(invalid("expires_ms: must be within the next 366 days".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_store::accounts::Token;
    use uuid::Uuid;

    fn host(number: u128) -> StatusHost {
        StatusHost { host: HostId(Uuid::from_u128(number)), name: format!(" Host {number} ") }
    }

    fn content(hosts: &[StatusHost]) -> StatusContent {
        let group = StatusGroup { name: "Web".to_owned(), hosts: hosts.to_vec() };
        StatusContent { groups: vec![group], ..StatusContent::default() }
    }

    fn page(owner: &Account) -> StatusPage {
        StatusPage {
            id: Uuid::from_u128(1),
            token_hash: [1; 32],
            title: "Shop".to_owned(),
            body: String::new(),
            enabled: true,
            expires_ms: 100,
            owner: owner.id,
            owner_epoch: owner.token_epoch,
            owner_token: None,
            created_ms: 0,
            updated_ms: 0,
        }
    }

    #[test]
    fn content_with_unknown_or_duplicate_hosts_is_rejected() {
        let is_visible = |id: HostId| id.0.as_u128() < 100;
        let message = |content: StatusContent| {
            content.validate(0, is_visible).map_err(|error| error.message().to_owned()).err()
        };
        assert_eq!(
            content(&[host(1), host(2)]).validate(0, is_visible).unwrap().groups[0].hosts[1].name,
            "Host 2"
        );
        for (content, expected) in [
            (content(&[]), "groups: expected 1 to 50 hosts together"),
            (content(&[host(1), host(100)]), "groups[0].hosts[1].host: host not found"),
            (content(&[host(1), host(1)]), "groups[0].hosts[1].host: duplicate entry"),
            (content(&(0..51).map(host).collect::<Vec<_>>()), "groups: expected 1 to 50 hosts together"),
            (
                content(&[StatusHost { name: "\u{202e}".to_owned(), ..host(1) }]),
                "groups[0].hosts[0].name: must have 1 to 100 bytes",
            ),
            (
                StatusContent { description: "x".repeat(1_001), ..content(&[host(1)]) },
                "description: a comment must have at most 1000 bytes and no control characters",
            ),
        ] {
            assert_eq!(message(content).as_deref(), Some(expected));
        }
    }

    #[test]
    fn page_ends_with_the_rights_of_its_owner() {
        let owner = Account {
            role: Role::Operator,
            token_epoch: 2,
            ..Account::new("op".to_owned(), Role::Operator, 0)
        };
        let active = page(&owner);
        let state = |page: &StatusPage, account: Option<&Account>, now_ms| {
            let mut snapshot = AuthSnapshot::default();
            snapshot.accounts.extend(account.map(|account| (account.id, account.clone())));
            page_state(page, &snapshot, now_ms)
        };
        assert_eq!(state(&active, Some(&owner), 99), PageState::Active);
        assert_eq!(state(&active, Some(&owner), 100), PageState::Expired);
        let disabled = StatusPage { enabled: false, ..active.clone() };
        assert_eq!(state(&disabled, Some(&owner), 99), PageState::Disabled);
        for account in [
            None,
            Some(Account { enabled: false, ..owner.clone() }),
            Some(Account { role: Role::Viewer, ..owner.clone() }),
            Some(Account { token_epoch: 3, ..owner.clone() }),
        ] {
            assert_eq!(state(&active, account.as_ref(), 99), PageState::Ended, "{account:?}");
        }
        let by_token = StatusPage { owner_token: Some(Uuid::from_u128(5)), ..active };
        assert_eq!(state(&by_token, Some(&owner), 99), PageState::Ended);
        let token = Token {
            id: Uuid::from_u128(5),
            hash: [5; 32],
            account: owner.id,
            name: "script".to_owned(),
            scope: "operator".to_owned(),
            created_ms: 0,
            expires_ms: None,
            last_used_ms: None,
        };
        let mut snapshot = AuthSnapshot::default();
        snapshot.accounts.insert(owner.id, owner);
        snapshot.tokens.insert(token.hash, token);
        assert_eq!(page_state(&by_token, &snapshot, 99), PageState::Active);
    }

    #[test]
    fn expiry_is_within_a_year() {
        for (expires_ms, is_valid) in
            [(1_000, false), (1_001, true), (1_000 + MAX_LIFETIME_MS, true), (1_001 + MAX_LIFETIME_MS, false)]
        {
            assert_eq!(validate_expiry(expires_ms, 1_000).is_ok(), is_valid, "{expires_ms}");
        }
    }
}

//! Names of hosts: a name belongs to the host that has it.
//!
//! A sender that may send for its own host only receives a numbered name (`web-2`) instead of the name of another
//! host, and its own name again once it is free. The rules are in `docs/IDENTITY.md`.

use perfwatch_model::printable::is_hidden;
use perfwatch_model::{HostId, limits};
use perfwatch_store::StoreError;
use std::collections::HashMap;
use std::time::Duration;

/// Period of [`limits::MAX_HOST_RENAMES_PER_HOUR`].
const RENAME_PERIOD_MS: i64 = 3_600_000;

/// Reason why the host of a snapshot is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostRegistryError {
    /// Name that a host cannot have.
    #[error("{0}")]
    InvalidName(String),
    /// Name of several hosts, where the id is missing.
    #[error("{0}")]
    AmbiguousName(String),
    /// New host although the maximum number of hosts is reached.
    #[error("the limit of {} hosts is reached", limits::MAX_HOSTS)]
    LimitReached,
    /// New host of a sender that created as many hosts as it may have.
    #[error(
        "the credential created {} hosts by sending for them, which is its limit",
        limits::MAX_HOSTS_PER_SENDER
    )]
    SenderLimitReached,
    /// New host of a sender that created too many within an hour.
    #[error("the credential created too many hosts within an hour")]
    TooManyNewHosts {
        /// Time until it may create more.
        retry_after: Duration,
    },
    /// Failed write of the host.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Right of a sender to the names of other hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRight {
    /// The sender may send for any host. It may give the name of a host to another host, too.
    AnyHost,
    /// The sender must not take the name of another host.
    OwnHost,
}

/// Change of the name of a known host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRename {
    /// Name before.
    pub before: String,
    /// Name from now on.
    pub after: String,
}

/// Hosts by name. Names are not unique: senders for any host may share them.
#[derive(Default)]
pub(crate) struct HostNames {
    by_name: HashMap<String, Vec<HostId>>,
    /// Start of the current period, Unix milliseconds, and number of renames in it.
    renames: HashMap<HostId, (i64, usize)>,
}

impl HostNames {
    /// Hosts of a name, ordered by id.
    pub(crate) fn hosts(&self, name: &str) -> &[HostId] {
        self.by_name.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Assigns a name to a host and releases its previous name.
    pub(crate) fn assign(&mut self, name: &str, previous: Option<&str>, id: HostId) {
        if let Some(previous) = previous.filter(|previous| *previous != name) {
            self.release(previous, id);
        }
        let ids = self.by_name.entry(name.to_owned()).or_default();
        if let Err(position) = ids.binary_search(&id) {
            ids.insert(position, id);
        }
    }

    pub(crate) fn release(&mut self, name: &str, id: HostId) {
        if let Some(ids) = self.by_name.get_mut(name) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    pub(crate) fn remove(&mut self, name: &str, id: HostId) {
        self.release(name, id);
        self.renames.remove(&id);
    }

    /// The only host of a name; `None` for a new name.
    pub(crate) fn unique_host(&self, name: &str) -> Result<Option<HostId>, HostRegistryError> {
        match self.hosts(name) {
            [] => Ok(None),
            [id] => Ok(Some(*id)),
            ids => Err(HostRegistryError::AmbiguousName(perfwatch_model::ambiguous_host_name(name, ids))),
        }
    }

    /// Name that a host receives which asks for `wanted`; `current` is the name that it has.
    pub(crate) fn permitted(
        &self,
        wanted: &str,
        current: Option<&str>,
        id: HostId,
        right: NameRight,
    ) -> String {
        // The id of a host, as a name of another host, would be taken for that host.
        let is_foreign_id = wanted.parse().is_ok_and(|named: HostId| named != id);
        let base = if is_foreign_id { format!("host-{wanted}") } else { wanted.to_owned() };
        let is_free = |name: &str| self.hosts(name).iter().all(|owner| *owner == id);
        if current == Some(&base) || is_free(&base) || right == NameRight::AnyHost {
            return base;
        }
        let end = base.floor_char_boundary(limits::MAX_HOST_NAME_BYTES - 12);
        let numbered = |number: usize| format!("{}-{number}", &base[..end]);
        let number =
            current.and_then(|name| name.strip_prefix(&base[..end])?.strip_prefix('-')?.parse().ok());
        if let (Some(current), Some(2..)) = (current, number) {
            return current.to_owned();
        }
        // There are fewer hosts than numbers.
        (2..=limits::MAX_HOSTS + 2).map(numbered).find(|name| is_free(name)).unwrap_or(base)
    }

    /// Counts a rename. Returns false if the host was renamed too often lately.
    pub(crate) fn try_rename(&mut self, id: HostId, now_ms: i64) -> bool {
        let (since_ms, count) = self.renames.entry(id).or_insert((now_ms, 0));
        if now_ms - *since_ms >= RENAME_PERIOD_MS {
            (*since_ms, *count) = (now_ms, 0);
        }
        *count += 1;
        *count <= limits::MAX_HOST_RENAMES_PER_HOUR
    }
}

/// Checks the length and the characters of a host name.
///
/// # Errors
/// Returns [`HostRegistryError::InvalidName`] if the name is empty, too long, or has control characters or
/// invisible characters.
pub fn validate_host_name(name: &str) -> Result<(), HostRegistryError> {
    let invalid = |message: String| Err(HostRegistryError::InvalidName(message));
    if name.is_empty() || name.len() > limits::MAX_HOST_NAME_BYTES {
        return invalid(format!("host name must have 1 to {} bytes", limits::MAX_HOST_NAME_BYTES));
    }
    if name.contains(is_hidden) {
        return invalid("host name must not contain control characters or invisible characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding H6.
    #[test]
    fn taken_name_is_numbered_and_returned_when_free() {
        let mut names = HostNames::default();
        let ids: Vec<HostId> = (1..=3).map(|n| HostId::from_bytes(&[n; 16]).unwrap()).collect();
        names.assign("web", None, ids[0]);
        let permitted =
            |names: &HostNames, current, id| names.permitted("web", current, id, NameRight::OwnHost);
        assert_eq!(permitted(&names, None, ids[1]), "web-2");
        names.assign("web-2", None, ids[1]);
        assert_eq!(permitted(&names, None, ids[2]), "web-3");
        assert_eq!(permitted(&names, Some("web-2"), ids[1]), "web-2", "a numbered name is kept");
        assert_eq!(permitted(&names, Some("web"), ids[0]), "web");
        assert_eq!(names.permitted("web", None, ids[2], NameRight::AnyHost), "web");
        names.release("web", ids[0]);
        assert_eq!(permitted(&names, Some("web-2"), ids[1]), "web");
        let long = "x".repeat(limits::MAX_HOST_NAME_BYTES);
        names.assign(&long, None, ids[0]);
        let numbered = names.permitted(&long, None, ids[1], NameRight::OwnHost);
        assert!(numbered.ends_with("x-2") && numbered.len() <= limits::MAX_HOST_NAME_BYTES);
    }

    /// Findings H6 and L2.
    #[test]
    fn name_that_is_the_id_of_another_host_is_changed() {
        let names = HostNames::default();
        let [id, other] = [1, 2].map(|n| HostId::from_bytes(&[n; 16]).unwrap());
        for right in [NameRight::OwnHost, NameRight::AnyHost] {
            for text in [other.to_string(), other.0.simple().to_string(), format!(" {other}")] {
                let name = names.permitted(&text, None, id, right);
                assert!(name.parse::<HostId>().is_err(), "{name}");
            }
            assert_eq!(names.permitted(&id.to_string(), None, id, right), id.to_string());
        }
    }
}

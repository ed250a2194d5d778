//! Preferences of an account for the dashboard, the same in every browser. They are one document of bounded size
//! beside the settings, because only the dashboard reads them.

use crate::actor::Actor;
use crate::directory::AuthDirectory;
use crate::error::AuthError;
use perfwatch_model::HostId;
use perfwatch_store::accounts::preferences_key;
use perfwatch_store::settings::get_setting;
use perfwatch_store::{StoreError, Transaction};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Maximum number of pinned hosts.
const MAX_PINS: usize = 50;
/// Maximum number of columns of the list of hosts.
const MAX_COLUMNS: usize = 50;
/// Maximum number of saved filters.
const MAX_FILTERS: usize = 50;
/// Maximum length of the name of a column or filter.
const MAX_NAME_BYTES: usize = 100;
/// Maximum length of a filter.
const MAX_FILTER_BYTES: usize = 500;

/// Filter of the list of hosts with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SavedFilter {
    /// Name, unique in the list.
    pub name: String,
    /// Words of the filter.
    pub filter: String,
}

/// Preferences of the current user. A value that is `null` was never chosen: the dashboard uses its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Preferences {
    /// Hosts pinned to the navigation, in their order; at most 50.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Uuid>>))]
    pub pins: Option<Vec<HostId>>,
    /// Columns of the list of hosts; at most 50.
    pub host_columns: Option<Vec<String>>,
    /// Saved filters of the list of hosts; at most 50.
    pub host_filters: Option<Vec<SavedFilter>>,
}

impl Preferences {
    /// Checks the sizes of the lists and texts.
    ///
    /// # Errors
    /// Returns the first list or text that is too long, with its limit.
    pub fn validate(&self) -> Result<(), String> {
        let list = |name: &str, len: usize, max: usize| match len > max {
            true => Err(format!("{name}: at most {max} entries are allowed")),
            false => Ok(()),
        };
        let text = |name: &str, text: &str, max: usize| match text.is_empty() || text.len() > max {
            true => Err(format!("{name}: expected 1 to {max} bytes")),
            false => Ok(()),
        };
        list("pins", self.pins.as_ref().map_or(0, Vec::len), MAX_PINS)?;
        let columns = self.host_columns.as_deref().unwrap_or_default();
        list("host_columns", columns.len(), MAX_COLUMNS)?;
        columns.iter().try_for_each(|column| text("host_columns", column, MAX_NAME_BYTES))?;
        let filters = self.host_filters.as_deref().unwrap_or_default();
        list("host_filters", filters.len(), MAX_FILTERS)?;
        filters.iter().try_for_each(|filter| {
            text("host_filters.name", &filter.name, MAX_NAME_BYTES)?;
            text("host_filters.filter", &filter.filter, MAX_FILTER_BYTES)
        })
    }
}

impl AuthDirectory {
    /// Preferences of an account; the default if none were stored.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the database cannot be read.
    pub async fn preferences(&self, account: Uuid) -> Result<Preferences, StoreError> {
        let text = get_setting(&*self.store, &preferences_key(account)).await?;
        // Preferences of a newer hub may have more fields; the dashboard then starts with its defaults.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// Replaces the preferences of the actor's account. The audit log does not contain them: they change nothing
    /// for others.
    ///
    /// # Errors
    /// Returns [`AuthError::Unauthenticated`] for an actor without an account, and [`AuthError::Store`] if the
    /// database cannot be written.
    pub async fn save_preferences(&self, actor: &Actor, preferences: &Preferences) -> Result<(), AuthError> {
        let account = actor.identity.account_id().ok_or(AuthError::Unauthenticated)?;
        let text = serde_json::to_string(preferences).unwrap_or_default();
        actor.recheck()?;
        let tx = Transaction::build(|tx| tx.settings().put(&preferences_key(account), &text));
        Ok(self.store.commit(tx).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_texts_are_bounded() {
        let filter = |name: &str, filter: &str| SavedFilter { name: name.into(), filter: filter.into() };
        let full = Preferences {
            pins: Some(vec![HostId::generate(); MAX_PINS]),
            host_columns: Some(vec!["c".repeat(MAX_NAME_BYTES); MAX_COLUMNS]),
            host_filters: Some(vec![filter("web", &"f".repeat(MAX_FILTER_BYTES)); MAX_FILTERS]),
        };
        assert_eq!(full.validate(), Ok(()));
        assert_eq!(Preferences::default().validate(), Ok(()));
        let with = |change: &dyn Fn(&mut Preferences)| {
            let mut preferences = full.clone();
            change(&mut preferences);
            preferences.validate().unwrap_err()
        };
        let pins = with(&|p| p.pins.as_mut().unwrap().push(HostId::generate()));
        assert_eq!(pins, "pins: at most 50 entries are allowed");
        let columns = with(&|p| p.host_columns.as_mut().unwrap()[3].clear());
        assert_eq!(columns, "host_columns: expected 1 to 100 bytes");
        let filters = with(&|p| p.host_filters.as_mut().unwrap()[0].filter.push('f'));
        assert_eq!(filters, "host_filters.filter: expected 1 to 500 bytes");
    }
}

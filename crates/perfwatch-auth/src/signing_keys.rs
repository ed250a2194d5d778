//! Keys that sign tokens, shared by all hubs of a database. The newest key starts signing only when
//! every hub has had time to load it; tokens signed by earlier keys remain valid until they expire.

use crate::secret;
use data_encoding::HEXLOWER;
use perfwatch_store::{Store, StoreError, Transaction, settings};

/// Age at which a new key is created.
const KEY_ROTATION_MS: i64 = 24 * 3_600_000;
/// Maximum number of keys kept, so that hubs that rotate at the same time invalidate no token.
const MAX_SIGNING_KEYS: usize = 4;
/// Time until every hub has loaded a new key; before that, the previous key signs.
const KEY_PROPAGATION_MS: i64 = 10_000;

/// Signing keys, newest first.
#[derive(Debug, Clone, Default)]
pub struct SigningKeys {
    keys: Vec<String>,
    /// Creation time of the newest key, milliseconds since 1970.
    since_ms: i64,
}

impl SigningKeys {
    /// Loads the keys; none in a new database.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] if the database cannot be reached.
    pub async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let setting = settings::get_setting(store, settings::SIGNING_KEYS).await?.unwrap_or_default();
        let mut fields = setting.split_ascii_whitespace();
        let since_ms = fields.next().and_then(|ms| ms.parse().ok()).unwrap_or_default();
        Ok(Self { since_ms, keys: fields.map(str::to_owned).collect() })
    }

    /// Key that signs at this time: one that every hub has loaded.
    pub fn current(&self, now_ms: i64) -> Option<&str> {
        let propagating = now_ms - self.since_ms < KEY_PROPAGATION_MS;
        self.keys.get(1).filter(|_| propagating).or(self.keys.first()).map(String::as_str)
    }

    /// All keys that verify, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    /// Oldest key, the same on all hubs of a database.
    pub fn oldest(&self) -> Option<&str> {
        self.keys.last().map(String::as_str)
    }

    /// Adds a new key; `None` if the newest key is not old enough.
    pub fn rotate(&self, now_ms: i64) -> Option<Transaction> {
        if !self.keys.is_empty() && now_ms - self.since_ms < KEY_ROTATION_MS {
            return None;
        }
        let mut setting = vec![now_ms.to_string(), HEXLOWER.encode(&secret::random_bytes::<32>())];
        setting.extend(self.keys.iter().take(MAX_SIGNING_KEYS - 1).cloned());
        Some(Transaction::build(|tx| tx.settings().put(settings::SIGNING_KEYS, &setting.join(" "))))
    }

    /// A single key, for tests.
    #[cfg(test)]
    pub(crate) fn from_key(key: &str) -> Self {
        Self { keys: vec![key.to_owned()], since_ms: 0 }
    }
}

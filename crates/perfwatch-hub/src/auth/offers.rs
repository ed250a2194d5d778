//! Second factors that were offered and are not on yet: kept in memory, for some minutes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

const LASTS: Duration = Duration::from_secs(15 * 60);

/// By account; a later offer takes the place of an earlier one.
#[derive(Default)]
pub(crate) struct Offers(Mutex<HashMap<Uuid, (Vec<u8>, Duration)>>);

impl Offers {
    pub(crate) fn put(&self, account: Uuid, key: Vec<u8>, now: Duration) {
        let mut offers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        offers.retain(|_, (_, at)| now.saturating_sub(*at) < LASTS);
        offers.insert(account, (key, now));
    }

    pub(crate) fn get(&self, account: Uuid, now: Duration) -> Option<Vec<u8>> {
        let offers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        offers.get(&account).filter(|(_, at)| now.saturating_sub(*at) < LASTS).map(|(key, _)| key.clone())
    }

    pub(crate) fn remove(&self, account: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&account);
    }
}

//! Health of notification channels, from the states of their notifications.

use perfwatch_store::outbox::{NotificationState, Outbox};
use perfwatch_store::{Store, StoreError};
use serde::Serialize;
use std::collections::HashMap;
use uuid::Uuid;

/// Notifications of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelHealth {
    /// Sent in the last 24 hours.
    pub sent_24h: i64,
    /// Waiting for their time, their channel or a retry.
    pub waiting: i64,
    /// Waiting for a retry because the last attempt failed.
    pub retrying: i64,
    /// Failed permanently in the last 24 hours.
    pub failed: i64,
}

/// Health of all channels that have notifications.
pub(crate) async fn read(
    store: &dyn Store,
    since_ms: i64,
) -> Result<HashMap<Uuid, ChannelHealth>, StoreError> {
    let mut by_channel: HashMap<Uuid, ChannelHealth> = HashMap::new();
    for row in Outbox::count(store, since_ms).await? {
        let health = by_channel.entry(row.channel).or_default();
        match row.state {
            NotificationState::Sent => health.sent_24h = row.count,
            NotificationState::Pending => {
                (health.waiting, health.retrying) = (row.count, row.error_count);
            }
            NotificationState::Failed => health.failed = row.count,
            NotificationState::Suppressed => {}
        }
    }
    Ok(by_channel)
}

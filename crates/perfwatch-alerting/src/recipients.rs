//! Results by recipient: which recipients of a notification are retried, and what the outbox records.

use crate::definitions::to_json;
use perfwatch_rules::notification::{Delivery, Notification, RecipientResult, RecipientState};
use perfwatch_store::outbox::{NotificationRow, NotificationState};

/// Body of a notification with results by recipient; unchanged if there are none.
fn with_recipients(body: &str, recipients: &[RecipientResult]) -> String {
    match serde_json::from_str::<Notification>(body) {
        Ok(notification) => to_json(&Notification { recipients: recipients.to_vec(), ..notification }),
        Err(_) => body.to_owned(),
    }
}

/// Body of a row that records the results of a delivery; `None` if the delivery has no recipients.
pub(crate) fn recorded_body(row: &NotificationRow, delivery: &Delivery) -> Option<String> {
    (!delivery.recipients.is_empty()).then(|| with_recipients(&row.body, &delivery.recipients))
}

/// Notification for the recipients that a server deferred, due at `due_ms`; `None` if it deferred none.
/// `sent` is the content that the other recipients received.
pub(crate) fn deferred_row(
    row: &NotificationRow,
    sent: &Notification,
    delivery: &Delivery,
    due_ms: i64,
) -> Option<NotificationRow> {
    let is_deferred = |result: &&RecipientResult| result.state == RecipientState::Deferred;
    let deferred: Vec<RecipientResult> = delivery.recipients.iter().filter(is_deferred).cloned().collect();
    (!deferred.is_empty()).then(|| NotificationRow {
        due_ms,
        retry_at_ms: due_ms,
        attempts: 0,
        state: NotificationState::Pending,
        error: None,
        finished_ms: None,
        body: to_json(&Notification { recipients: deferred, ..sent.clone() }),
        ..row.clone()
    })
}

/// Content of a row that continues a delivery for deferred recipients; `None` for other rows.
pub(crate) fn continuation(row: &NotificationRow) -> Option<Notification> {
    let notification: Notification = serde_json::from_str(&row.body).ok()?;
    (!notification.recipients.is_empty()).then_some(notification)
}

//! Reminders: notifications that a channel repeats until the incident is acknowledged or resolved.

use crate::definitions::to_json;
use perfwatch_rules::channel::Channel;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::Notification;
use perfwatch_store::Transaction;
use perfwatch_store::outbox::NotificationRow;
use uuid::Uuid;

/// Enqueues the next reminder if the channel repeats notifications.
pub(crate) fn schedule_reminder(tx: &mut Transaction, channel: &Channel, row: &NotificationRow, now_ms: i64) {
    let is_repeated = !matches!(
        NotificationReason::parse(&row.reason),
        Some(NotificationReason::Resolved | NotificationReason::Test) | None
    );
    if channel.repeat_interval.ms() > 0 && is_repeated {
        let due_ms = now_ms + channel.repeat_interval.ms();
        let reminder = NotificationRow {
            reason: NotificationReason::Reminder.name().to_owned(),
            created_ms: now_ms,
            due_ms,
            retry_at_ms: due_ms,
            body: with_new_id(&row.body),
            ..row.clone()
        };
        let merge_key = format!("{} {} reminder", channel.id, row.incident);
        tx.notifications().enqueue(&reminder, Some(&merge_key));
    }
}

/// Body of a reminder: the same notification under a new id.
fn with_new_id(body: &str) -> String {
    match serde_json::from_str::<Notification>(body) {
        Ok(notification) => to_json(&Notification {
            id: Uuid::now_v7(),
            reason: NotificationReason::Reminder,
            recipients: Vec::new(),
            ..notification
        }),
        Err(_) => body.to_owned(),
    }
}

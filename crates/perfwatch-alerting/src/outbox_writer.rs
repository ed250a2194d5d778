//! Enqueues the notifications of an incident.

use crate::active_incidents::OpenIncident;
use crate::definitions::to_json;
use crate::notification_builder::NotificationBuilder;
use crate::state::AlertingSnapshot;
use perfwatch_auth::AuthDirectory;
use perfwatch_rules::channel::Channel;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_store::Transaction;
use perfwatch_store::outbox::{NotificationRow, NotificationState};
use std::sync::Arc;
use uuid::Uuid;

/// Request to notify the channels of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PendingNotice {
    pub(crate) incident: Uuid,
    pub(crate) reason: NotificationReason,
    /// Delay in milliseconds, in which further alerts are grouped; 0 to notify immediately.
    pub(crate) delay_ms: i64,
}

/// Creates outbox rows for the channels that accept an incident.
#[derive(Clone)]
pub(crate) struct OutboxWriter {
    pub(crate) directory: Arc<AuthDirectory>,
    pub(crate) builder: NotificationBuilder,
}

impl OutboxWriter {
    /// Enqueues a notification for each channel that accepts an alert of the incident.
    pub(crate) fn enqueue_notifications(
        &self,
        tx: &mut Transaction,
        state: &AlertingSnapshot,
        incident: &OpenIncident,
        notice: PendingNotice,
        now_ms: i64,
    ) {
        let PendingNotice { reason, delay_ms, .. } = notice;
        let auth_snapshot = self.directory.snapshot();
        let is_notified = |channel: &&Arc<Channel>| {
            let accepts_reason = reason != NotificationReason::Resolved || channel.send_resolved;
            let mut alerts = incident.alerts.iter().filter(|alert| !alert.body.silenced);
            accepts_reason && alerts.any(|alert| channel.accepts(alert.match_target(&auth_snapshot)))
        };
        let notification = self.builder.build_notification(incident, reason, now_ms);
        let body = to_json(&notification);
        for channel in state.definitions.channels.iter().filter(is_notified) {
            // A resolution is not escalated: a channel that was notified of the incident learns of its
            // end immediately.
            let escalate_after_ms = match reason {
                NotificationReason::Resolved => 0,
                _ => channel.escalate_after.ms(),
            };
            let due_ms = now_ms + delay_ms + escalate_after_ms;
            let is_merged = reason == NotificationReason::Updated && delay_ms > 0;
            let merge_key = is_merged.then(|| format!("{} {} updated", channel.id, incident.incident.id));
            let row = NotificationRow {
                id: 0,
                channel: channel.id,
                incident: incident.incident.id,
                reason: reason.name().to_owned(),
                severity: incident.incident.severity.name().to_owned(),
                created_ms: now_ms,
                due_ms,
                retry_at_ms: due_ms,
                attempts: 0,
                state: NotificationState::Pending,
                error: None,
                finished_ms: None,
                body: body.clone(),
            };
            tx.notifications().enqueue(&row, merge_key.as_deref());
        }
    }
}

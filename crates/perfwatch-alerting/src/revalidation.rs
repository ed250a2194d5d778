//! Decides before a delivery whether a notification is still needed, and with which content.

use crate::active_incidents::OpenIncident;
use crate::incident_service::IncidentService;
use crate::notification_builder::NotificationBuilder;
use perfwatch_model::Clock;
use perfwatch_rules::channel::Channel;
use perfwatch_rules::incident::{IncidentPhase, NotificationReason};
use perfwatch_rules::notification::Notification;
use perfwatch_store::outbox::{NotificationRow, Outbox};
use perfwatch_store::{CommitError, Store, Transaction};
use std::sync::Arc;

/// Decision about a due notification.
pub(crate) enum Revalidation {
    /// Notification to deliver, with its current content.
    Send(Box<Notification>),
    /// Notification is obsolete, for the given reason.
    Suppress(&'static str),
    /// The stored content cannot be parsed.
    Unreadable,
}

/// Checks due notifications against the current state of their incident.
pub(crate) struct Revalidator {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) incidents: Arc<IncidentService>,
    pub(crate) builder: NotificationBuilder,
}

/// Properties of an incident that make notifications unnecessary.
struct IncidentStatus {
    is_resolved: bool,
    is_acknowledged: bool,
    /// All firing alerts are silenced.
    is_silenced: bool,
}

impl IncidentStatus {
    /// Status of an incident; a deleted incident counts as resolved.
    fn new(incident: Option<&OpenIncident>, now_ms: i64) -> Self {
        Self {
            is_resolved: incident.is_none_or(|open| open.incident.phase == IncidentPhase::Resolved),
            is_acknowledged: incident.is_some_and(|open| open.incident.is_acknowledged(now_ms)),
            is_silenced: incident.is_some_and(|open| {
                open.firing().next().is_some() && open.firing().all(|alert| alert.body.silenced)
            }),
        }
    }

    /// Reason to suppress a notification; `None` to send it.
    fn suppression(&self, reason: NotificationReason, is_escalation: bool) -> Option<&'static str> {
        use NotificationReason::{Reminder, Resolved, Test, Updated};
        match reason {
            Test | Resolved => None,
            // The end of the silence causes another notification.
            _ if self.is_silenced => Some("silenced"),
            Reminder | Updated if self.is_resolved => Some("incident resolved"),
            Reminder if self.is_acknowledged => Some("incident acknowledged"),
            _ if is_escalation && self.is_resolved => Some("incident resolved"),
            _ if is_escalation && self.is_acknowledged => Some("incident acknowledged"),
            _ => None,
        }
    }
}

impl Revalidator {
    /// Decides whether to deliver a notification, and updates its content if it was written long before.
    ///
    /// # Errors
    /// Returns a [`CommitError`] if the store is unavailable.
    pub(crate) async fn revalidate(
        &self,
        channel: &Channel,
        row: &NotificationRow,
    ) -> Result<Revalidation, CommitError> {
        use NotificationReason::{Opened, Reminder, Reopened, Resolved, Test, Updated};
        let state = self.incidents.snapshot();
        let loaded;
        let incident = match state.incidents.incident(row.incident) {
            Some(incident) => Some(&**incident),
            // Resolved long ago, or so new that only the store contains it.
            None => {
                loaded = self.incidents.get(row.incident).await?;
                loaded.as_ref()
            }
        };
        let reason = NotificationReason::parse(&row.reason).unwrap_or(Updated);
        let now_ms = self.clock.wall_ms();
        let is_escalation = channel.escalate_after.ms() > 0;
        if reason == Resolved && !Outbox::was_notified(&*self.store, channel.id, row.incident).await? {
            return Ok(Revalidation::Suppress("channel was never notified of this incident"));
        }
        if let Some(text) = IncidentStatus::new(incident, now_ms).suppression(reason, is_escalation) {
            return Ok(Revalidation::Suppress(text));
        }
        let Ok(stored) = serde_json::from_str::<Notification>(&row.body) else {
            return Ok(Revalidation::Unreadable);
        };
        let notification = match reason {
            Test | Resolved => stored,
            Opened | Reopened if !is_escalation => stored,
            Opened | Reopened => self.update_content(stored, incident, reason, now_ms),
            Updated | Reminder => {
                let tx = Transaction::build(|tx| tx.notifications().mark_sending(row.id));
                self.store.commit(tx).await?;
                // Alerts that joined before the commit are in the state; later alerts enqueue another row.
                let state = self.incidents.snapshot();
                let incident = state.incidents.incident(row.incident).map(|open| &**open);
                self.update_content(stored, incident, reason, now_ms)
            }
        };
        Ok(Revalidation::Send(Box::new(notification)))
    }

    /// Replaces the stored content by the current state of the incident; the id remains.
    fn update_content(
        &self,
        stored: Notification,
        incident: Option<&OpenIncident>,
        reason: NotificationReason,
        now_ms: i64,
    ) -> Notification {
        match incident {
            Some(open) => {
                Notification { id: stored.id, ..self.builder.build_notification(open, reason, now_ms) }
            }
            None => stored,
        }
    }
}

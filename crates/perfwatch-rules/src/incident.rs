//! Incident state: grouping, flapping, acknowledgment.
//!
//! An incident groups the alerts of a host, of a rule, or of the hosts that share a tag. An incident
//! that reopens repeatedly is held open (flapping) until it stays quiet.

use crate::rule::{GroupBy, Rule, Severity};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Time after resolution in which a new alert reopens the incident. Also the quiet time that resolves
/// a flapping incident.
pub const REOPEN_WINDOW_MS: i64 = 600_000;
/// Minimum number of reopenings of a flapping incident.
const MIN_FLAP_REOPENS: u32 = 2;
/// Delay of the notification when alerts join a notified incident, so that several alerts are grouped.
pub const GROUP_WAIT_MS: i64 = 30_000;

/// Phase of an incident, without acknowledgment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum IncidentPhase {
    /// Some alert of the incident fires.
    Open,
    /// No alert fires, but the incident reopened repeatedly and is held open.
    Flapping,
    /// No alert fires; the incident is closed.
    Resolved,
}

/// Reason why a notification is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NotificationReason {
    /// First notification of the incident.
    Opened,
    /// Severity increased or alerts joined.
    Updated,
    /// Incident was resolved and fires again.
    Reopened,
    /// Incident is still unacknowledged.
    Reminder,
    /// All alerts are resolved.
    Resolved,
    /// Test notification, sent by an operator.
    Test,
}

impl NotificationReason {
    /// Name in the API and in notifications.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "updated",
            Self::Reopened => "reopened",
            Self::Reminder => "reminder",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }

    /// Parses a reason from its name.
    pub fn parse(name: &str) -> Option<Self> {
        use NotificationReason::{Opened, Reminder, Reopened, Resolved, Test, Updated};
        [Opened, Updated, Reopened, Reminder, Resolved, Test].into_iter().find(|reason| reason.name() == name)
    }
}

/// Acknowledgment of an incident by a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ack {
    /// Name of the acknowledging user.
    pub by: String,
    /// Time of the acknowledgment, in milliseconds since 1970.
    pub at_ms: i64,
    /// Expiry, in milliseconds since 1970; until resolution if `None`.
    pub until_ms: Option<i64>,
}

/// Group of alerts with a shared state and timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Stable identifier of the incident (UUIDv7).
    pub id: Uuid,
    /// Common key of its alerts, from [`group_key`].
    pub group_key: String,
    /// Highest severity of its firing alerts.
    pub severity: Severity,
    /// Current phase of the incident.
    pub phase: IncidentPhase,
    /// Time of the first alert, in milliseconds since 1970.
    pub opened_ms: i64,
    /// Time at which its last alert resolved, in milliseconds since 1970.
    pub quiet_since_ms: Option<i64>,
    /// Number of reopenings so far.
    pub reopen_count: u32,
    /// Current acknowledgment, if any.
    pub ack: Option<Ack>,
    /// Set after a notification was requested.
    pub notified: bool,
}

/// Circumstances under which an alert joins an incident.
#[derive(Debug, Clone, Copy, Default)]
pub struct JoinContext {
    /// Set if a silence suppresses the notifications of the alert.
    pub silenced: bool,
    /// Set if the same rule, host and instance fired in the incident before.
    pub rejoined: bool,
    /// Highest severity of the alerts that already fire in the incident.
    pub worst_firing: Option<Severity>,
}

/// Outcome of closing a flapping incident with [`Incident::try_close`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseOutcome {
    /// Incident is not flapping, or was not quiet for long enough.
    Pending,
    /// Incident was closed by the call.
    Closed {
        /// Requests a notification with [`NotificationReason::Resolved`].
        notify: bool,
    },
}

/// Grouping key of the alerts of a rule on a host.
pub fn group_key(rule: &Rule, host: Uuid, tags: &[String]) -> String {
    match &rule.group_by {
        GroupBy::Host => format!("host {host}"),
        GroupBy::Rule => format!("rule {}", rule.id),
        GroupBy::Tag(tag) => {
            let has_key = |text: &&String| text.split_once('=').is_some_and(|(key, _)| key == tag);
            match tags.iter().find(has_key) {
                Some(tag) => format!("tag {tag}"),
                None => format!("host {host}"),
            }
        }
    }
}

impl Incident {
    /// Creates an open incident that was not notified yet.
    pub fn new(group_key: String, severity: Severity, now_ms: i64) -> Self {
        Self {
            id: Uuid::now_v7(),
            group_key,
            severity,
            phase: IncidentPhase::Open,
            opened_ms: now_ms,
            quiet_since_ms: None,
            reopen_count: 0,
            ack: None,
            notified: false,
        }
    }

    /// Returns whether a new alert with the same key joins this incident.
    pub fn accepts(&self, now_ms: i64) -> bool {
        self.phase != IncidentPhase::Resolved
            || self.quiet_since_ms.is_some_and(|quiet_since| now_ms - quiet_since < REOPEN_WINDOW_MS)
    }

    fn is_flapping(&self) -> bool {
        self.reopen_count >= MIN_FLAP_REOPENS
    }

    /// Returns whether an acknowledgment is in effect.
    pub fn is_acknowledged(&self, now_ms: i64) -> bool {
        self.ack.as_ref().is_some_and(|ack| ack.until_ms.is_none_or(|until| now_ms < until))
    }

    /// Adds an alert. Returns the reason and the delay in milliseconds of a notification.
    pub fn join(&mut self, severity: Severity, context: JoinContext) -> Option<(NotificationReason, i64)> {
        let previous = self.phase;
        let is_escalated = context.worst_firing.is_some_and(|firing| severity > firing);
        self.severity = context.worst_firing.map_or(severity, |firing| firing.max(severity));
        self.phase = IncidentPhase::Open;
        if context.silenced {
            return None;
        }
        if previous != IncidentPhase::Open {
            self.reopen_count += 1;
        }
        if !self.notified {
            self.notified = true;
            return Some((NotificationReason::Opened, 0));
        }
        match previous {
            _ if is_escalated => Some((NotificationReason::Updated, 0)),
            IncidentPhase::Open => Some((NotificationReason::Updated, GROUP_WAIT_MS)),
            // A flapping alert was notified often enough.
            _ if context.rejoined && self.is_flapping() => None,
            IncidentPhase::Flapping | IncidentPhase::Resolved => Some((NotificationReason::Reopened, 0)),
        }
    }

    /// Handles the end of a silence while alerts fire. Returns reason and delay in milliseconds.
    pub fn on_silence_expired(&mut self) -> Option<(NotificationReason, i64)> {
        let was_notified = std::mem::replace(&mut self.notified, true);
        Some(if was_notified {
            (NotificationReason::Updated, GROUP_WAIT_MS)
        } else {
            (NotificationReason::Opened, 0)
        })
    }

    /// Handles the resolution of the last alert: holds a flapping incident open, closes others.
    pub fn on_all_resolved(&mut self, now_ms: i64) -> Option<NotificationReason> {
        self.quiet_since_ms = Some(now_ms);
        if self.is_flapping() {
            self.phase = IncidentPhase::Flapping;
            return None;
        }
        self.close().then_some(NotificationReason::Resolved)
    }

    /// Closes the incident; returns whether to send a notification.
    fn close(&mut self) -> bool {
        self.phase = IncidentPhase::Resolved;
        self.ack = None;
        self.notified
    }

    /// Closes a flapping incident that stayed quiet for [`REOPEN_WINDOW_MS`].
    pub fn try_close(&mut self, now_ms: i64) -> CloseOutcome {
        let is_quiet = self.phase == IncidentPhase::Flapping
            && self.quiet_since_ms.is_some_and(|quiet_since| now_ms - quiet_since >= REOPEN_WINDOW_MS);
        if is_quiet { CloseOutcome::Closed { notify: self.close() } } else { CloseOutcome::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REJOINED: JoinContext = JoinContext { silenced: false, rejoined: true, worst_firing: None };
    const NEW: JoinContext = JoinContext { silenced: false, rejoined: false, worst_firing: None };
    const SILENCED: JoinContext = JoinContext { silenced: true, rejoined: false, worst_firing: None };

    #[test]
    fn flapping_incident_is_held_open() {
        let mut incident = Incident::new("host 1".to_owned(), Severity::Warning, 0);
        let (mut now_ms, mut reasons) = (0, Vec::new());
        for _ in 0..20 {
            assert!(incident.accepts(now_ms));
            reasons.extend(incident.join(Severity::Warning, REJOINED).map(|(reason, _)| reason));
            now_ms += 40_000;
            reasons.extend(incident.on_all_resolved(now_ms));
            now_ms += 40_000;
            assert_eq!(incident.try_close(now_ms), CloseOutcome::Pending);
        }
        use NotificationReason::{Opened, Reopened, Resolved};
        assert_eq!(reasons, [Opened, Resolved, Reopened, Resolved]);
        // A new alert is notified although the incident is flapping.
        let mut other = incident.clone();
        assert_eq!(other.join(Severity::Warning, NEW), Some((Reopened, 0)));
        assert_eq!(incident.try_close(now_ms + REOPEN_WINDOW_MS), CloseOutcome::Closed { notify: true });
        assert_eq!(incident.phase, IncidentPhase::Resolved);
        assert!(incident.accepts(now_ms + 100_000) && !incident.accepts(now_ms + 2 * REOPEN_WINDOW_MS));
    }

    #[test]
    fn escalated_severity_notifies_immediately() {
        let mut incident = Incident::new("host 1".to_owned(), Severity::Warning, 0);
        let joining = |firing| JoinContext { worst_firing: Some(firing), ..NEW };
        assert_eq!(incident.join(Severity::Warning, SILENCED), None);
        assert_eq!(
            incident.join(Severity::Info, joining(Severity::Warning)),
            Some((NotificationReason::Opened, 0))
        );
        assert_eq!(
            incident.join(Severity::Warning, joining(Severity::Warning)),
            Some((NotificationReason::Updated, GROUP_WAIT_MS))
        );
        assert_eq!(
            incident.join(Severity::Critical, joining(Severity::Warning)),
            Some((NotificationReason::Updated, 0))
        );
        assert_eq!(incident.severity, Severity::Critical);
        // The critical alert was resolved: a second critical alert is worse than the remaining alert.
        assert_eq!(
            incident.join(Severity::Critical, joining(Severity::Info)),
            Some((NotificationReason::Updated, 0))
        );
        let mut silenced = Incident::new("host 2".to_owned(), Severity::Warning, 0);
        silenced.join(Severity::Warning, SILENCED);
        assert_eq!(silenced.on_all_resolved(1), None, "the opening was not notified");
    }

    #[test]
    fn group_key_by_host_rule_and_tag() {
        let host = Uuid::from_u128(7);
        let tags = ["web".to_owned(), "environment=production".to_owned()];
        let key = |group_by| {
            let rule = Rule { group_by, ..crate::builtin_rules::builtin_rules().remove(0) };
            group_key(&rule, host, &tags)
        };
        assert_eq!(key(GroupBy::Host), format!("host {host}"));
        assert!(key(GroupBy::Rule).starts_with("rule "));
        assert_eq!(key(GroupBy::Tag("environment".to_owned())), "tag environment=production");
        assert_eq!(key(GroupBy::Tag("region".to_owned())), format!("host {host}"));
    }
}

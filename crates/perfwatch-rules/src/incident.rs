//! What belongs together is one incident, and one message: alerts of a host, of a rule, or of the
//! hosts that share a tag. An incident that comes and goes is held open until it is calm.

use crate::rule::{GroupBy, Rule, Severity};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One that closed this recently is the same one when it comes back.
pub const REOPEN_WINDOW_MS: i64 = 600_000;
/// What came back so often within that comes and goes: it is over when it was calm for as long.
const FLAP_THRESHOLD: u32 = 2;
/// What joins an incident that was told of waits this long for more.
pub const GROUP_WAIT_MS: i64 = 30_000;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum IncidentPhase {
    /// Something fires.
    Open,
    /// Nothing fires just now, but it came back before.
    Flapping,
    /// Over.
    Resolved,
}

/// What people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NotificationReason {
    /// It began.
    Opened,
    /// It got worse or larger.
    Updated,
    /// It came back.
    Reopened,
    /// It goes on, and nobody took it on.
    Reminder,
    /// It is over.
    Resolved,
    /// Nothing happened: somebody tries whether they are heard.
    Test,
}

impl NotificationReason {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "changed",
            Self::Reopened => "reopened",
            Self::Reminder => "reminder",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }

    /// From its name.
    pub fn parse(name: &str) -> Option<Self> {
        use NotificationReason::{Opened, Reminder, Reopened, Resolved, Test, Updated};
        [Opened, Updated, Reopened, Reminder, Resolved, Test].into_iter().find(|notice| notice.name() == name)
    }
}

/// Somebody takes it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ack {
    /// Who.
    pub by: String,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Until when; for as long as it lasts if none.
    pub until_ms: Option<i64>,
}

/// One incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// For ever.
    pub id: Uuid,
    /// What its alerts have in common.
    pub group_key: String,
    /// How bad the worst of it is.
    pub severity: Severity,
    /// How it stands.
    pub phase: IncidentPhase,
    /// When it began, milliseconds since 1970.
    pub opened_ms: i64,
    /// When it was last over.
    pub quiet_since_ms: Option<i64>,
    /// How often it came back.
    pub reopen_count: u32,
    /// Who takes it on.
    pub ack: Option<Ack>,
    /// Whether anybody was told.
    pub notified: bool,
}

/// How an alert comes to an incident.
#[derive(Debug, Clone, Copy, Default)]
pub struct JoinContext {
    /// Nobody is to be told.
    pub silenced: bool,
    /// The same rule, host and instance were in it before.
    pub rejoined: bool,
    /// The worst that fires in it already.
    pub worst_firing: Option<Severity>,
}

/// What the alerts of a rule at a host have in common with others.
pub fn group_key(rule: &Rule, host: Uuid, tags: &[String]) -> String {
    match &rule.group_by {
        GroupBy::Host => format!("host {host}"),
        GroupBy::Rule => format!("rule {}", rule.id),
        GroupBy::Tag(tag) => {
            let of = |text: &String| text.split_once('=').filter(|(key, _)| key == tag).map(|_| text.clone());
            match tags.iter().find_map(of) {
                Some(tag) => format!("tag {tag}"),
                None => format!("host {host}"),
            }
        }
    }
}

impl Incident {
    /// One that just began.
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

    /// Whether an alert with its key belongs to it.
    pub fn accepts(&self, now_ms: i64) -> bool {
        self.phase != IncidentPhase::Resolved
            || self.quiet_since_ms.is_some_and(|calm| now_ms - calm < REOPEN_WINDOW_MS)
    }

    fn is_flapping(&self) -> bool {
        self.reopen_count >= FLAP_THRESHOLD
    }

    /// Whether somebody has taken it on.
    pub fn is_acknowledged(&self, now_ms: i64) -> bool {
        self.ack.as_ref().is_some_and(|ack| ack.until_ms.is_none_or(|until| now_ms < until))
    }

    /// An alert joins; what people are told, and in how many milliseconds.
    pub fn join(&mut self, severity: Severity, joins: JoinContext) -> Option<(NotificationReason, i64)> {
        let before = self.phase;
        let worse = joins.worst_firing.is_some_and(|firing| severity > firing);
        self.severity = joins.worst_firing.map_or(severity, |firing| firing.max(severity));
        self.phase = IncidentPhase::Open;
        if joins.silenced {
            return None;
        }
        if before != IncidentPhase::Open {
            self.reopen_count += 1;
        }
        if !self.notified {
            self.notified = true;
            return Some((NotificationReason::Opened, 0));
        }
        match before {
            _ if worse => Some((NotificationReason::Updated, 0)),
            IncidentPhase::Open => Some((NotificationReason::Updated, GROUP_WAIT_MS)),
            // It was told often enough.
            _ if joins.rejoined && self.is_flapping() => None,
            IncidentPhase::Flapping | IncidentPhase::Resolved => Some((NotificationReason::Reopened, 0)),
        }
    }

    /// A silence is over and it fires still: what people are told, and in how many milliseconds.
    pub fn on_silence_expired(&mut self) -> Option<(NotificationReason, i64)> {
        let first = !std::mem::replace(&mut self.notified, true);
        Some(if first {
            (NotificationReason::Opened, 0)
        } else {
            (NotificationReason::Updated, GROUP_WAIT_MS)
        })
    }

    /// The last of its alerts ended; what people are told.
    pub fn on_all_resolved(&mut self, now_ms: i64) -> Option<NotificationReason> {
        self.quiet_since_ms = Some(now_ms);
        if self.is_flapping() {
            self.phase = IncidentPhase::Flapping;
            return None;
        }
        self.close()
    }

    fn close(&mut self) -> Option<NotificationReason> {
        self.phase = IncidentPhase::Resolved;
        self.ack = None;
        self.notified.then_some(NotificationReason::Resolved)
    }

    /// It has been calm for long enough; what people are told.
    pub fn try_close(&mut self, now_ms: i64) -> Option<Option<NotificationReason>> {
        let calm = self.phase == IncidentPhase::Flapping
            && self.quiet_since_ms.is_some_and(|calm| now_ms - calm >= REOPEN_WINDOW_MS);
        calm.then(|| self.close())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: JoinContext = JoinContext { silenced: false, rejoined: true, worst_firing: None };
    const NEW: JoinContext = JoinContext { silenced: false, rejoined: false, worst_firing: None };
    const SILENCED: JoinContext = JoinContext { silenced: true, rejoined: false, worst_firing: None };

    #[test]
    fn flapping_incident_is_held_open() {
        let mut incident = Incident::new("host 1".to_owned(), Severity::Warning, 0);
        let (mut now_ms, mut told) = (0, Vec::new());
        for _ in 0..20 {
            assert!(incident.accepts(now_ms));
            told.extend(incident.join(Severity::Warning, AGAIN).map(|(notice, _)| notice));
            now_ms += 40_000;
            told.extend(incident.on_all_resolved(now_ms));
            now_ms += 40_000;
            assert_eq!(incident.try_close(now_ms), None);
        }
        use NotificationReason::{Opened, Reopened, Resolved};
        assert_eq!(told, [Opened, Resolved, Reopened, Resolved]);
        // Another alert is news, whatever flapped before.
        let mut other = incident.clone();
        assert_eq!(other.join(Severity::Warning, NEW), Some((Reopened, 0)));
        assert_eq!(incident.try_close(now_ms + REOPEN_WINDOW_MS), Some(Some(Resolved)));
        assert_eq!(incident.phase, IncidentPhase::Resolved);
        assert!(incident.accepts(now_ms + 100_000) && !incident.accepts(now_ms + 2 * REOPEN_WINDOW_MS));
    }

    #[test]
    fn escalated_severity_notifies_immediately() {
        let mut incident = Incident::new("host 1".to_owned(), Severity::Warning, 0);
        let beside = |firing| JoinContext { worst_firing: Some(firing), ..NEW };
        assert_eq!(incident.join(Severity::Warning, SILENCED), None);
        assert_eq!(
            incident.join(Severity::Info, beside(Severity::Warning)),
            Some((NotificationReason::Opened, 0))
        );
        assert_eq!(
            incident.join(Severity::Warning, beside(Severity::Warning)),
            Some((NotificationReason::Updated, GROUP_WAIT_MS))
        );
        assert_eq!(
            incident.join(Severity::Critical, beside(Severity::Warning)),
            Some((NotificationReason::Updated, 0))
        );
        assert_eq!(incident.severity, Severity::Critical);
        // The critical one ended meanwhile: another one is worse than what is left.
        assert_eq!(
            incident.join(Severity::Critical, beside(Severity::Info)),
            Some((NotificationReason::Updated, 0))
        );
        let mut quiet = Incident::new("host 2".to_owned(), Severity::Warning, 0);
        quiet.join(Severity::Warning, SILENCED);
        assert_eq!(quiet.on_all_resolved(1), None, "nobody was told that it began");
    }

    #[test]
    fn group_key_by_host_rule_and_tag() {
        let host = Uuid::from_u128(7);
        let tags = ["web".to_owned(), "environment=production".to_owned()];
        let of = |group| {
            let rule = Rule { group_by: group, ..crate::builtin_rules::builtin_rules().remove(0) };
            group_key(&rule, host, &tags)
        };
        assert_eq!(of(GroupBy::Host), format!("host {host}"));
        assert!(of(GroupBy::Rule).starts_with("rule "));
        assert_eq!(of(GroupBy::Tag("environment".to_owned())), "tag environment=production");
        assert_eq!(of(GroupBy::Tag("region".to_owned())), format!("host {host}"));
    }
}

//! What belongs together is one incident, and one message: alerts of a host, of a rule, or of the
//! hosts that share a tag. An incident that comes and goes is held open until it is calm.

use crate::rule::{Group, Rule, Severity};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One that closed this recently is the same one when it comes back.
pub const SAME_MS: i64 = 600_000;
/// What came back so often within that comes and goes: it is over when it was calm for as long.
const COMES_AND_GOES: u32 = 2;
/// What joins an incident that was told of waits this long for more.
pub const GATHER_MS: i64 = 30_000;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Phase {
    /// Something fires.
    Open,
    /// Nothing fires just now, but it came back before.
    Settling,
    /// Over.
    Closed,
}

/// What people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Notice {
    /// It began.
    Opened,
    /// It got worse or larger.
    Changed,
    /// It came back.
    Reopened,
    /// It goes on, and nobody took it on.
    Reminder,
    /// It is over.
    Resolved,
    /// Nothing happened: somebody tries whether they are heard.
    Test,
}

impl Notice {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Changed => "changed",
            Self::Reopened => "reopened",
            Self::Reminder => "reminder",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }

    /// From its name.
    pub fn of(name: &str) -> Option<Self> {
        use Notice::{Changed, Opened, Reminder, Reopened, Resolved, Test};
        [Opened, Changed, Reopened, Reminder, Resolved, Test].into_iter().find(|notice| notice.name() == name)
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
    pub key: String,
    /// How bad the worst of it is.
    pub severity: Severity,
    /// How it stands.
    pub phase: Phase,
    /// When it began, milliseconds since 1970.
    pub opened_ms: i64,
    /// When it was last over.
    pub calm_ms: Option<i64>,
    /// How often it came back.
    pub reopened: u32,
    /// Who takes it on.
    pub ack: Option<Ack>,
    /// Whether anybody was told.
    pub told: bool,
}

/// How an alert comes to an incident.
#[derive(Debug, Clone, Copy, Default)]
pub struct Joins {
    /// Nobody is to be told.
    pub silenced: bool,
    /// The same rule, host and instance were in it before.
    pub again: bool,
    /// The worst that fires in it already.
    pub firing: Option<Severity>,
}

/// What the alerts of a rule at a host have in common with others.
pub fn key(rule: &Rule, host: Uuid, tags: &[String]) -> String {
    match &rule.group {
        Group::Host => format!("host {host}"),
        Group::Rule => format!("rule {}", rule.id),
        Group::Tag(tag) => {
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
    pub fn new(key: String, severity: Severity, now_ms: i64) -> Self {
        Self {
            id: Uuid::now_v7(),
            key,
            severity,
            phase: Phase::Open,
            opened_ms: now_ms,
            calm_ms: None,
            reopened: 0,
            ack: None,
            told: false,
        }
    }

    /// Whether an alert with its key belongs to it.
    pub fn takes(&self, now_ms: i64) -> bool {
        self.phase != Phase::Closed || self.calm_ms.is_some_and(|calm| now_ms - calm < SAME_MS)
    }

    fn comes_and_goes(&self) -> bool {
        self.reopened >= COMES_AND_GOES
    }

    /// Whether somebody has taken it on.
    pub fn acknowledged(&self, now_ms: i64) -> bool {
        self.ack.as_ref().is_some_and(|ack| ack.until_ms.is_none_or(|until| now_ms < until))
    }

    /// An alert joins; what people are told, and in how many milliseconds.
    pub fn join(&mut self, severity: Severity, joins: Joins) -> Option<(Notice, i64)> {
        let before = self.phase;
        let worse = joins.firing.is_some_and(|firing| severity > firing);
        self.severity = joins.firing.map_or(severity, |firing| firing.max(severity));
        self.phase = Phase::Open;
        if joins.silenced {
            return None;
        }
        if before != Phase::Open {
            self.reopened += 1;
        }
        if !self.told {
            self.told = true;
            return Some((Notice::Opened, 0));
        }
        match before {
            _ if worse => Some((Notice::Changed, 0)),
            Phase::Open => Some((Notice::Changed, GATHER_MS)),
            // It was told often enough.
            _ if joins.again && self.comes_and_goes() => None,
            Phase::Settling | Phase::Closed => Some((Notice::Reopened, 0)),
        }
    }

    /// A silence is over and it fires still: what people are told, and in how many milliseconds.
    pub fn speak(&mut self) -> Option<(Notice, i64)> {
        let first = !std::mem::replace(&mut self.told, true);
        Some(if first { (Notice::Opened, 0) } else { (Notice::Changed, GATHER_MS) })
    }

    /// The last of its alerts ended; what people are told.
    pub fn ease(&mut self, now_ms: i64) -> Option<Notice> {
        self.calm_ms = Some(now_ms);
        if self.comes_and_goes() {
            self.phase = Phase::Settling;
            return None;
        }
        self.close()
    }

    fn close(&mut self) -> Option<Notice> {
        self.phase = Phase::Closed;
        self.ack = None;
        self.told.then_some(Notice::Resolved)
    }

    /// It has been calm for long enough; what people are told.
    pub fn settle(&mut self, now_ms: i64) -> Option<Option<Notice>> {
        let calm = self.phase == Phase::Settling && self.calm_ms.is_some_and(|calm| now_ms - calm >= SAME_MS);
        calm.then(|| self.close())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: Joins = Joins { silenced: false, again: true, firing: None };
    const NEW: Joins = Joins { silenced: false, again: false, firing: None };
    const SILENCED: Joins = Joins { silenced: true, again: false, firing: None };

    #[test]
    fn what_flaps_is_told_a_few_times_and_then_held() {
        let mut incident = Incident::new("host 1".to_owned(), Severity::Warning, 0);
        let (mut now_ms, mut told) = (0, Vec::new());
        for _ in 0..20 {
            assert!(incident.takes(now_ms));
            told.extend(incident.join(Severity::Warning, AGAIN).map(|(notice, _)| notice));
            now_ms += 40_000;
            told.extend(incident.ease(now_ms));
            now_ms += 40_000;
            assert_eq!(incident.settle(now_ms), None);
        }
        use Notice::{Opened, Reopened, Resolved};
        assert_eq!(told, [Opened, Resolved, Reopened, Resolved]);
        // Another alert is news, whatever flapped before.
        let mut other = incident.clone();
        assert_eq!(other.join(Severity::Warning, NEW), Some((Reopened, 0)));
        assert_eq!(incident.settle(now_ms + SAME_MS), Some(Some(Resolved)));
        assert_eq!(incident.phase, Phase::Closed);
        assert!(incident.takes(now_ms + 100_000) && !incident.takes(now_ms + 2 * SAME_MS));
    }

    #[test]
    fn worse_is_told_at_once_and_more_is_gathered() {
        let mut incident = Incident::new("host 1".to_owned(), Severity::Warning, 0);
        let beside = |firing| Joins { firing: Some(firing), ..NEW };
        assert_eq!(incident.join(Severity::Warning, SILENCED), None);
        assert_eq!(incident.join(Severity::Info, beside(Severity::Warning)), Some((Notice::Opened, 0)));
        assert_eq!(
            incident.join(Severity::Warning, beside(Severity::Warning)),
            Some((Notice::Changed, GATHER_MS))
        );
        assert_eq!(incident.join(Severity::Critical, beside(Severity::Warning)), Some((Notice::Changed, 0)));
        assert_eq!(incident.severity, Severity::Critical);
        // The critical one ended meanwhile: another one is worse than what is left.
        assert_eq!(incident.join(Severity::Critical, beside(Severity::Info)), Some((Notice::Changed, 0)));
        let mut quiet = Incident::new("host 2".to_owned(), Severity::Warning, 0);
        quiet.join(Severity::Warning, SILENCED);
        assert_eq!(quiet.ease(1), None, "nobody was told that it began");
    }

    #[test]
    fn keys_by_host_rule_and_tag() {
        let host = Uuid::from_u128(7);
        let tags = ["web".to_owned(), "environment=production".to_owned()];
        let of = |group| {
            let rule = Rule { group, ..crate::defaults::rules().remove(0) };
            key(&rule, host, &tags)
        };
        assert_eq!(of(Group::Host), format!("host {host}"));
        assert!(of(Group::Rule).starts_with("rule "));
        assert_eq!(of(Group::Tag("environment".to_owned())), "tag environment=production");
        assert_eq!(of(Group::Tag("region".to_owned())), format!("host {host}"));
    }
}

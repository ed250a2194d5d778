//! Timeline entries that the hub itself writes.

use perfwatch_store::incidents::{IncidentEventKind, IncidentEventRow};
use uuid::Uuid;

/// Timeline entry of an incident without an actor.
pub(crate) fn timeline_event(
    incident: Uuid,
    at_ms: i64,
    kind: IncidentEventKind,
    text: impl Into<String>,
) -> IncidentEventRow {
    IncidentEventRow { incident, at_ms, kind, actor: String::new(), text: text.into() }
}

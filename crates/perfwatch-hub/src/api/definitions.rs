//! Changes of alert definitions. Rules, channels and silences are created, replaced and deleted in the same
//! way: one commit with the audit entry, on the revision of the alerting state that the change was decided
//! on.

use crate::app::App;
use perfwatch_alerting::{
    AlertDefinitions, AlertingSnapshot, MAX_CHANNELS, MAX_RULES, MAX_SILENCES, StateChange, to_json,
};
use perfwatch_auth::Actor;
use perfwatch_http::ApiError;
use perfwatch_rules::channel::Channel;
use perfwatch_rules::rule::Rule;
use perfwatch_rules::silence::Silence;
use perfwatch_store::Transaction;
use perfwatch_store::audit::AuditEntry;
use perfwatch_store::definitions::DefinitionKind;
use serde::Serialize;
use std::sync::Arc;
use uuid::Uuid;

/// Time for which an expired silence is kept.
const EXPIRED_SILENCE_RETENTION_MS: i64 = 30 * 86_400_000;

/// Alert definition that the store keeps as one JSON document.
pub(super) trait Definition: Clone + Serialize {
    const KIND: DefinitionKind;
    /// Singular noun for messages, audit actions and audit objects.
    const NAME: &'static str;
    /// Maximum number of definitions of this kind.
    const MAX_COUNT: usize;

    fn id(&self) -> Uuid;

    /// Name or id in the audit log.
    fn label(&self) -> String;

    fn list(definitions: &AlertDefinitions) -> &Vec<Arc<Self>>;

    fn list_mut(definitions: &mut AlertDefinitions) -> &mut Vec<Arc<Self>>;

    /// Takes over what a replacement must not change.
    fn inherit(self, _previous: &Self) -> Self {
        self
    }

    /// Returns whether the definition is deleted when another definition is saved.
    fn is_obsolete(&self, _now_ms: i64) -> bool {
        false
    }

    /// Adds the writes that belong to the deletion besides the definition's own.
    fn on_delete(&self, _tx: &mut Transaction, _now_ms: i64) {}
}

impl Definition for Rule {
    const KIND: DefinitionKind = DefinitionKind::Rule;
    const NAME: &'static str = "rule";
    const MAX_COUNT: usize = MAX_RULES;

    fn id(&self) -> Uuid {
        self.id
    }

    fn label(&self) -> String {
        self.name.clone()
    }

    fn list(definitions: &AlertDefinitions) -> &Vec<Arc<Self>> {
        &definitions.rules
    }

    fn list_mut(definitions: &mut AlertDefinitions) -> &mut Vec<Arc<Self>> {
        &mut definitions.rules
    }
}

impl Definition for Channel {
    const KIND: DefinitionKind = DefinitionKind::Channel;
    const NAME: &'static str = "channel";
    const MAX_COUNT: usize = MAX_CHANNELS;

    fn id(&self) -> Uuid {
        self.id
    }

    fn label(&self) -> String {
        self.name.clone()
    }

    fn list(definitions: &AlertDefinitions) -> &Vec<Arc<Self>> {
        &definitions.channels
    }

    fn list_mut(definitions: &mut AlertDefinitions) -> &mut Vec<Arc<Self>> {
        &mut definitions.channels
    }

    fn on_delete(&self, tx: &mut Transaction, now_ms: i64) {
        tx.notifications().suppress_for_channel(self.id, now_ms);
    }
}

impl Definition for Silence {
    const KIND: DefinitionKind = DefinitionKind::Silence;
    const NAME: &'static str = "silence";
    const MAX_COUNT: usize = MAX_SILENCES;

    fn id(&self) -> Uuid {
        self.id
    }

    fn label(&self) -> String {
        self.id.to_string()
    }

    fn list(definitions: &AlertDefinitions) -> &Vec<Arc<Self>> {
        &definitions.silences
    }

    fn list_mut(definitions: &mut AlertDefinitions) -> &mut Vec<Arc<Self>> {
        &mut definitions.silences
    }

    fn inherit(self, previous: &Self) -> Self {
        Self { created_by: previous.created_by.clone(), created_ms: previous.created_ms, ..self }
    }

    fn is_obsolete(&self, now_ms: i64) -> bool {
        self.ends_ms.is_some_and(|ends_ms| ends_ms < now_ms - EXPIRED_SILENCE_RETENTION_MS)
    }
}

fn not_found<D: Definition>() -> ApiError {
    ApiError::not_found(format!("{} not found", D::NAME))
}

/// Error of a definition above the maximum number.
pub(super) fn limit_reached<D: Definition>(max_count: usize) -> ApiError {
    ApiError::conflict("limit_reached", format!("at most {max_count} {}s are allowed", D::NAME))
}

/// Definition with the id of a request path.
///
/// # Errors
/// Returns `not_found` if the id is malformed or unknown.
pub(super) fn find<D: Definition>(app: &App, id: &str) -> Result<Arc<D>, ApiError> {
    let id: Uuid = id.parse().map_err(|_| not_found::<D>())?;
    let state = app.alerting.snapshot();
    D::list(&state.definitions).iter().find(|stored| stored.id() == id).cloned().ok_or_else(not_found::<D>)
}

/// Audit entry of a change; `to_audited` removes secrets.
fn audit_entry<D: Definition, A: Serialize>(
    actor: &Actor,
    action: &str,
    to_audited: impl Fn(&D) -> A,
    (before, after): (Option<&D>, Option<&D>),
) -> AuditEntry {
    let label = after.or(before).map(D::label).unwrap_or_default();
    let (before, after) = (before.map(&to_audited), after.map(&to_audited));
    let action = format!("{}.{action}", D::NAME);
    actor.audit_change(&action, format!("{} {label}", D::NAME), before.as_ref(), after.as_ref())
}

/// Creates a definition.
///
/// # Errors
/// Returns `limit_reached` at the maximum number, and errors of the commit.
pub(super) async fn create<D: Definition, A: Serialize>(
    app: &App,
    actor: &Actor,
    definition: &D,
    to_audited: impl Fn(&D) -> A,
) -> Result<Arc<D>, ApiError> {
    let entry = audit_entry(actor, "create", to_audited, (None, Some(definition)));
    save(app, (actor, entry), definition, true).await
}

/// Replaces the definition of the same id.
///
/// # Errors
/// Returns `not_found` if the definition does not exist, and errors of the commit.
pub(super) async fn replace<D: Definition, A: Serialize>(
    app: &App,
    actor: &Actor,
    definition: &D,
    to_audited: impl Fn(&D) -> A,
) -> Result<Arc<D>, ApiError> {
    let before = find::<D>(app, &definition.id().to_string())?;
    let entry = audit_entry(actor, "update", to_audited, (Some(&*before), Some(definition)));
    save(app, (actor, entry), definition, false).await
}

async fn save<D: Definition>(
    app: &App,
    act: (&Actor, AuditEntry),
    definition: &D,
    is_new: bool,
) -> Result<Arc<D>, ApiError> {
    let max_count = act.0.identity.max_objects(D::MAX_COUNT);
    let change = |state: &AlertingSnapshot, now_ms: i64| {
        let mut definitions = state.definitions.clone();
        let list = D::list_mut(&mut definitions);
        let position = list.iter().position(|stored| stored.id() == definition.id());
        let saved = match (position, is_new) {
            (Some(index), false) => {
                list[index] = Arc::new(definition.clone().inherit(&list[index]));
                list[index].clone()
            }
            (None, true) => {
                list.push(Arc::new(definition.clone()));
                list[list.len() - 1].clone()
            }
            _ => return Err(not_found::<D>()),
        };
        let is_obsolete = |stored: &Arc<D>| stored.id() != saved.id() && stored.is_obsolete(now_ms);
        let obsolete = list.iter().filter(|stored| is_obsolete(stored));
        let mut tx = Transaction::default();
        obsolete.for_each(|stored| tx.definitions(D::KIND).delete(stored.id()));
        list.retain(|stored| !is_obsolete(stored));
        // Managed rules may exceed the limit; existing definitions remain editable.
        if is_new && list.len() > max_count {
            return Err(limit_reached::<D>(max_count));
        }
        tx.definitions(D::KIND).upsert(saved.id(), &to_json(&*saved));
        Ok((StateChange { definitions: Some(definitions), tx, incidents: None }, saved))
    };
    app.alerting.update_as(act, change).await
}

/// Deletes a definition.
///
/// # Errors
/// Returns `not_found` if the definition does not exist, and errors of the commit.
pub(super) async fn delete<D: Definition, A: Serialize>(
    app: &App,
    actor: &Actor,
    id: &str,
    to_audited: impl Fn(&D) -> A,
) -> Result<(), ApiError> {
    let deleted = find::<D>(app, id)?;
    let entry = audit_entry(actor, "delete", to_audited, (Some(&*deleted), None));
    let change = |state: &AlertingSnapshot, now_ms: i64| {
        let mut definitions = state.definitions.clone();
        D::list_mut(&mut definitions).retain(|stored| stored.id() != deleted.id());
        let mut tx = Transaction::default();
        tx.definitions(D::KIND).delete(deleted.id());
        deleted.on_delete(&mut tx, now_ms);
        Ok::<_, ApiError>((StateChange { definitions: Some(definitions), tx, incidents: None }, ()))
    };
    app.alerting.update_as((actor, entry), change).await
}

//! Alerts: one of a kind fires at a time, messages wait in order, and what is old goes whole.

use super::accounts::commit;
use perfwatch_store::alerts::*;
use perfwatch_store::*;
use uuid::Uuid;

const T0: i64 = 1_764_000_000_000;

fn incident(key: &str, opened_ms: i64) -> IncidentRow {
    IncidentRow {
        id: Uuid::now_v7(),
        group_key: key.to_owned(),
        closed: false,
        title: format!("Web_1: 100 % busy ({key})"),
        severity: "warning".to_owned(),
        phase: "open".to_owned(),
        opened_ms,
        quiet_since_ms: None,
        reopen_count: 0,
        ack: None,
        notified: false,
    }
}

fn alert(incident: &IncidentRow, host: Uuid, instance: &str) -> AlertRow {
    AlertRow {
        id: Uuid::now_v7(),
        incident: incident.id,
        firing_key: Some(format!("{host} {instance}")),
        rule: Uuid::from_u128(7),
        host,
        severity: "warning".to_owned(),
        fired_ms: incident.opened_ms,
        resolved_ms: None,
        body: "{}".to_owned(),
    }
}

fn message(incident: &IncidentRow, channel: Uuid, due_ms: i64, body: &str) -> NotificationRow {
    NotificationRow {
        id: 0,
        channel,
        incident: incident.id,
        reason: "opened".to_owned(),
        severity: "warning".to_owned(),
        created_ms: T0,
        due_ms,
        retry_at_ms: due_ms,
        attempts: 0,
        state: "waiting".to_owned(),
        error: None,
        finished_ms: None,
        body: body.to_owned(),
    }
}

pub(crate) async fn incidents_and_notifications(store: &dyn Store) {
    let rule = Uuid::now_v7();
    commit(
        store,
        [
            DefinitionKind::Rule.upsert(rule, "one"),
            DefinitionKind::Rule.upsert(rule, "two"),
            DefinitionKind::Silence.upsert(rule, "x"),
        ],
    )
    .await
    .unwrap();
    assert_eq!(DefinitionKind::Rule.list(store).await.unwrap(), [(rule, "two".to_owned())]);
    assert!(DefinitionKind::Channel.list(store).await.unwrap().is_empty());
    commit(store, [DefinitionKind::Rule.delete(rule)]).await.unwrap();
    assert_eq!(commit(store, [DefinitionKind::Rule.delete(rule)]).await, Err(CommitError::Conflict));

    let (host, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut first = incident("host 1", T0);
    let mut one = alert(&first, host, "/");
    commit(store, [first.upsert(), one.insert(Some("why"))]).await.unwrap();
    // Another hub saw the same: one of them is first.
    let twin = incident("host 1", T0 + 1);
    assert_eq!(commit(store, [twin.upsert()]).await, Err(CommitError::Conflict));
    assert_eq!(commit(store, [alert(&first, host, "/").insert(None)]).await, Err(CommitError::Conflict));
    let second = incident("host 2", T0 + 10);
    commit(store, [second.upsert(), alert(&second, other, "").insert(None)]).await.unwrap();
    assert_eq!(AlertRow::list(store, AlertFilter::Active(T0)).await.unwrap().len(), 2);
    assert_eq!(AlertRow::explanations(store, first.id).await.unwrap(), [(one.id, "why".to_owned())]);

    (one.firing_key, one.resolved_ms) = (None, Some(T0 + 50));
    (first.closed, first.quiet_since_ms, first.phase) = (true, Some(T0 + 50), "closed".to_owned());
    commit(store, [first.upsert(), one.update()]).await.unwrap();
    assert_eq!(commit(store, [one.update()]).await, Err(CommitError::Conflict), "it ended already");
    assert_eq!(AlertRow::list(store, AlertFilter::Incident(first.id)).await.unwrap(), [one.clone()]);
    assert_eq!(IncidentRow::list_active(store, T0 + 51).await.unwrap(), std::slice::from_ref(&second));
    assert_eq!(IncidentRow::list_active(store, T0 + 50).await.unwrap().len(), 2);
    filters(store, &first, &second).await;
    messages(store, &first).await;

    let event = IncidentEventRow {
        incident: first.id,
        at_ms: T0,
        kind: "fired".into(),
        actor: String::new(),
        text: "x\u{fffd}".into(),
    };
    // PostgreSQL's texts hold no NUL.
    let with_nul = IncidentEventRow { text: "x\0".into(), ..event.clone() };
    commit(store, [with_nul.insert()]).await.unwrap();
    assert_eq!(IncidentEventRow::list(store, first.id).await.unwrap(), [event]);
    commit(store, IncidentRow::delete_resolved_before(T0 + 51)).await.unwrap();
    assert_eq!(IncidentRow::get(store, first.id).await.unwrap(), None);
    assert!(IncidentEventRow::list(store, first.id).await.unwrap().is_empty());
    assert!(AlertRow::list(store, AlertFilter::Incident(first.id)).await.unwrap().is_empty());
    assert_eq!(IncidentRow::get(store, second.id).await.unwrap(), Some(second), "it is not over");
}

async fn filters(store: &dyn Store, first: &IncidentRow, second: &IncidentRow) {
    let all = || IncidentFilter { to_ms: i64::MAX, limit: 10, ..IncidentFilter::default() };
    for (filter, want) in [
        (all(), vec![second.id, first.id]),
        (IncidentFilter { limit: 1, ..all() }, vec![second.id]),
        (IncidentFilter { host: Some(Uuid::from_u128(1)), ..all() }, vec![first.id]),
        (IncidentFilter { rule: Some(Uuid::from_u128(7)), ..all() }, vec![second.id, first.id]),
        (IncidentFilter { rule: Some(Uuid::from_u128(8)), ..all() }, vec![]),
        (IncidentFilter { severity: Some("critical".into()), ..all() }, vec![]),
        (IncidentFilter { text: "B_1: 100 %".into(), ..all() }, vec![second.id, first.id]),
        (IncidentFilter { text: "w%1".into(), ..all() }, vec![]),
        (IncidentFilter { to_ms: T0 + 10, ..all() }, vec![first.id]),
        (IncidentFilter { to_ms: T0 + 10, to_id: Some(second.id), ..all() }, vec![first.id]),
        (IncidentFilter { to_ms: T0 + 10, to_id: Some(Uuid::max()), ..all() }, vec![second.id, first.id]),
    ] {
        let ids: Vec<Uuid> =
            IncidentRow::list(store, filter.clone()).await.unwrap().iter().map(|row| row.id).collect();
        assert_eq!(ids, want, "{filter:?}");
    }
    let host = AlertFilter::Host(Uuid::from_u128(1), T0 + 40, T0 + 60);
    assert_eq!(AlertRow::list(store, host).await.unwrap().len(), 1);
}

async fn messages(store: &dyn Store, incident: &IncidentRow) {
    let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
    let add = |channel, due_ms, body, key| message(incident, channel, due_ms, body).enqueue(key);
    let key = Some("one changed");
    let all = [
        add(one, T0 + 5, "b", None),
        add(two, T0 + 5, "c", None),
        add(one, T0, "a", None),
        add(one, T0 + 30, "stale", key),
        add(one, T0 + 60, "newest", key),
    ];
    commit(store, all).await.unwrap();
    let any = ["info", "warning", "critical"];
    let due_at = |now_ms, limit| Outbox::due(store, one, any, now_ms, limit);
    let mut channels = Outbox::channels_due(store, T0 + 5).await.unwrap();
    channels.sort();
    assert_eq!((channels, Outbox::channels_due(store, T0).await.unwrap()), (vec![one, two], vec![one]));
    let due = due_at(T0 + 5, 10).await.unwrap();
    let bodies: Vec<&str> = due.iter().map(|row| row.body.as_str()).collect();
    assert_eq!(bodies, ["a", "b"]);
    let worse = Outbox::due(store, one, ["critical"; 3], T0 + 5, 10).await.unwrap();
    assert!(worse.is_empty());
    let later = due_at(T0 + 30, 10).await.unwrap();
    assert_eq!((later.len(), later[2].body.as_str(), later[2].due_ms), (3, "newest", T0 + 30));
    // What is going out takes in nothing more.
    commit(store, [Outbox::mark_sending(later[2].id), add(one, T0 + 30, "after it", key)]).await.unwrap();
    assert_eq!(due_at(T0 + 30, 10).await.unwrap().len(), 4);
    commit(store, [Outbox::finish(later[2].id, "sent", None, T0 + 30)]).await.unwrap();
    commit(store, [Outbox::retry_at(due[0].id, T0 + 100, "nobody there")]).await.unwrap();
    let again = due_at(T0 + 5, 1).await.unwrap().remove(0);
    assert_eq!(
        (again.attempts, again.retry_at_ms, again.error.as_deref()),
        (1, T0 + 100, Some("nobody there"))
    );
    commit(store, [Outbox::finish(due[0].id, "sent", None, T0 + 101)]).await.unwrap();
    assert_eq!(
        commit(store, [Outbox::finish(due[0].id, "sent", None, T0 + 102)]).await,
        Err(CommitError::Conflict)
    );
    assert!(Outbox::was_notified(store, one, incident.id).await.unwrap());
    commit(store, [Outbox::finish(due[1].id, "dead", Some("400"), T0 + 103)]).await.unwrap();
    assert_eq!(Outbox::failed_since(store, T0).await.unwrap(), 1);
    let dead = NotificationFilter { state: Some("dead".into()), limit: 9, ..NotificationFilter::default() };
    assert_eq!(Outbox::list(store, dead).await.unwrap()[0].id, due[1].id);
    commit(store, [Outbox::requeue(due[1].id, T0 + 200), Outbox::suppress_for_channel(two, T0 + 201)])
        .await
        .unwrap();
    let of_two = NotificationFilter { channel: Some(two), limit: 9, ..NotificationFilter::default() };
    assert_eq!(Outbox::list(store, of_two).await.unwrap()[0].state, "skipped");
    assert_eq!(due_at(T0 + 200, 10).await.unwrap().len(), 2);
    commit(store, [HostLastSeen::upsert(one, 5), HostLastSeen::upsert(one, 7)]).await.unwrap();
    assert_eq!(HostLastSeen::list(store).await.unwrap(), [(one, 7)]);
    commit(store, [HostLastSeen::delete(one)]).await.unwrap();
}

//! Alerts: one of a kind fires at a time, messages wait in order, and what is old goes whole.

use super::people::commit;
use perfwatch_store::alerts::*;
use perfwatch_store::*;
use uuid::Uuid;

const T0: i64 = 1_764_000_000_000;

fn incident(key: &str, opened_ms: i64) -> IncidentRow {
    IncidentRow {
        id: Uuid::now_v7(),
        key: key.to_owned(),
        closed: false,
        title: format!("Web_1: 100 % busy ({key})"),
        severity: "warning".to_owned(),
        phase: "open".to_owned(),
        opened_ms,
        calm_ms: None,
        reopened: 0,
        ack: None,
        told: false,
    }
}

fn alert(incident: &IncidentRow, host: Uuid, instance: &str) -> AlertRow {
    AlertRow {
        id: Uuid::now_v7(),
        incident: incident.id,
        live_key: Some(format!("{host} {instance}")),
        rule: Uuid::from_u128(7),
        host,
        severity: "warning".to_owned(),
        fired_ms: incident.opened_ms,
        resolved_ms: None,
        body: "{}".to_owned(),
    }
}

fn message(incident: &IncidentRow, channel: Uuid, due_ms: i64, body: &str) -> OutboxRow {
    OutboxRow {
        id: 0,
        channel,
        incident: incident.id,
        notice: "opened".to_owned(),
        severity: "warning".to_owned(),
        created_ms: T0,
        due_ms,
        next_ms: due_ms,
        tries: 0,
        state: "waiting".to_owned(),
        error: None,
        done_ms: None,
        body: body.to_owned(),
    }
}

pub(crate) async fn incidents_and_their_messages(store: &dyn Store) {
    let rule = Uuid::now_v7();
    commit(store, [Noun::Rule.put(rule, "one"), Noun::Rule.put(rule, "two"), Noun::Silence.put(rule, "x")])
        .await
        .unwrap();
    assert_eq!(Noun::Rule.all(store).await.unwrap(), [(rule, "two".to_owned())]);
    assert!(Noun::Channel.all(store).await.unwrap().is_empty());
    commit(store, [Noun::Rule.remove(rule)]).await.unwrap();
    assert_eq!(commit(store, [Noun::Rule.remove(rule)]).await, Err(CommitError::Conflict));

    let (host, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut first = incident("host 1", T0);
    let mut one = alert(&first, host, "/");
    commit(store, [first.save(), one.add(Some("why"))]).await.unwrap();
    // Another hub saw the same: one of them is first.
    let twin = incident("host 1", T0 + 1);
    assert_eq!(commit(store, [twin.save()]).await, Err(CommitError::Conflict));
    assert_eq!(commit(store, [alert(&first, host, "/").add(None)]).await, Err(CommitError::Conflict));
    let second = incident("host 2", T0 + 10);
    commit(store, [second.save(), alert(&second, other, "").add(None)]).await.unwrap();
    assert_eq!(AlertRow::all(store, AlertsOf::Live(T0)).await.unwrap().len(), 2);
    assert_eq!(AlertRow::explanations(store, first.id).await.unwrap(), [(one.id, "why".to_owned())]);

    (one.live_key, one.resolved_ms) = (None, Some(T0 + 50));
    (first.closed, first.calm_ms, first.phase) = (true, Some(T0 + 50), "closed".to_owned());
    commit(store, [first.save(), one.save()]).await.unwrap();
    assert_eq!(commit(store, [one.save()]).await, Err(CommitError::Conflict), "it ended already");
    assert_eq!(AlertRow::all(store, AlertsOf::Incident(first.id)).await.unwrap(), [one.clone()]);
    assert_eq!(IncidentRow::live(store, T0 + 51).await.unwrap(), std::slice::from_ref(&second));
    assert_eq!(IncidentRow::live(store, T0 + 50).await.unwrap().len(), 2);
    filters(store, &first, &second).await;
    messages(store, &first).await;

    let event = EventRow {
        incident: first.id,
        at_ms: T0,
        kind: "fired".into(),
        actor: String::new(),
        text: "x\u{fffd}".into(),
    };
    // PostgreSQL's texts hold no NUL.
    let with_nul = EventRow { text: "x\0".into(), ..event.clone() };
    commit(store, [with_nul.add()]).await.unwrap();
    assert_eq!(EventRow::all(store, first.id).await.unwrap(), [event]);
    commit(store, IncidentRow::remove_old(T0 + 51)).await.unwrap();
    assert_eq!(IncidentRow::one(store, first.id).await.unwrap(), None);
    assert!(EventRow::all(store, first.id).await.unwrap().is_empty());
    assert!(AlertRow::all(store, AlertsOf::Incident(first.id)).await.unwrap().is_empty());
    assert_eq!(IncidentRow::one(store, second.id).await.unwrap(), Some(second), "it is not over");
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
    let host = AlertsOf::Host(Uuid::from_u128(1), T0 + 40, T0 + 60);
    assert_eq!(AlertRow::all(store, host).await.unwrap().len(), 1);
}

async fn messages(store: &dyn Store, incident: &IncidentRow) {
    let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
    let add = |channel, due_ms, body, key| message(incident, channel, due_ms, body).add(key);
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
    let mut channels = Outbox::channels(store, T0 + 5).await.unwrap();
    channels.sort();
    assert_eq!((channels, Outbox::channels(store, T0).await.unwrap()), (vec![one, two], vec![one]));
    let due = due_at(T0 + 5, 10).await.unwrap();
    let bodies: Vec<&str> = due.iter().map(|row| row.body.as_str()).collect();
    assert_eq!(bodies, ["a", "b"]);
    let worse = Outbox::due(store, one, ["critical"; 3], T0 + 5, 10).await.unwrap();
    assert!(worse.is_empty());
    let later = due_at(T0 + 30, 10).await.unwrap();
    assert_eq!((later.len(), later[2].body.as_str(), later[2].due_ms), (3, "newest", T0 + 30));
    // What is going out takes in nothing more.
    commit(store, [Outbox::claim(later[2].id), add(one, T0 + 30, "after it", key)]).await.unwrap();
    assert_eq!(due_at(T0 + 30, 10).await.unwrap().len(), 4);
    commit(store, [Outbox::done(later[2].id, "sent", None, T0 + 30)]).await.unwrap();
    commit(store, [Outbox::again(due[0].id, T0 + 100, "nobody there")]).await.unwrap();
    let again = due_at(T0 + 5, 1).await.unwrap().remove(0);
    assert_eq!((again.tries, again.next_ms, again.error.as_deref()), (1, T0 + 100, Some("nobody there")));
    commit(store, [Outbox::done(due[0].id, "sent", None, T0 + 101)]).await.unwrap();
    assert_eq!(
        commit(store, [Outbox::done(due[0].id, "sent", None, T0 + 102)]).await,
        Err(CommitError::Conflict)
    );
    assert!(Outbox::told(store, one, incident.id).await.unwrap());
    commit(store, [Outbox::done(due[1].id, "dead", Some("400"), T0 + 103)]).await.unwrap();
    assert_eq!(Outbox::dead_since(store, T0).await.unwrap(), 1);
    let dead = OutboxFilter { state: Some("dead".into()), limit: 9, ..OutboxFilter::default() };
    assert_eq!(Outbox::list(store, dead).await.unwrap()[0].id, due[1].id);
    commit(store, [Outbox::revive(due[1].id, T0 + 200), Outbox::forget(two, T0 + 201)]).await.unwrap();
    let of_two = OutboxFilter { channel: Some(two), limit: 9, ..OutboxFilter::default() };
    assert_eq!(Outbox::list(store, of_two).await.unwrap()[0].state, "skipped");
    assert_eq!(due_at(T0 + 200, 10).await.unwrap().len(), 2);
    commit(store, [LastHeard::put(one, 5), LastHeard::put(one, 7)]).await.unwrap();
    assert_eq!(LastHeard::all(store).await.unwrap(), [(one, 7)]);
    commit(store, [LastHeard::remove(one)]).await.unwrap();
}

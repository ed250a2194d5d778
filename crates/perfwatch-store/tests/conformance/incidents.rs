//! Definitions, incidents, alerts, notifications and last-seen times.

use crate::support::{apply, assert_conflict, conformance};
use perfwatch_store::alert_times::AlertTimes;
use perfwatch_store::collections::{CollectTrigger, CollectionRow};
use perfwatch_store::definitions::DefinitionKind;
use perfwatch_store::host_last_seen::HostLastSeen;
use perfwatch_store::incidents::*;
use perfwatch_store::outbox::*;
use perfwatch_store::*;
use std::sync::Arc;
use uuid::Uuid;

conformance! {
    definitions_are_replaced_and_deleted,
    one_incident_is_open_per_group_key,
    notifications_are_delivered_in_order,
    postponed_notification_blocks_no_other,
    notifications_are_counted_by_channel_and_state,
    host_last_seen_is_replaced,
    recent_alerts_are_shared_by_hosts,
    state_columns_accept_every_value,
}

const T0: i64 = 1_764_000_000_000;

fn incident(key: &str, opened_ms: i64) -> IncidentRow {
    IncidentRow {
        id: Uuid::now_v7(),
        group_key: key.to_owned(),
        title: format!("Web_1: 100 % busy ({key})"),
        severity: "warning".to_owned(),
        phase: IncidentPhase::Open,
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

fn event(incident: Uuid, kind: IncidentEventKind, text: &str) -> IncidentEventRow {
    IncidentEventRow { incident, at_ms: T0, kind, actor: String::new(), text: text.to_owned() }
}

fn notification(incident: Uuid, channel: Uuid, due_ms: i64, body: &str) -> NotificationRow {
    NotificationRow {
        id: 0,
        channel,
        incident,
        reason: "opened".to_owned(),
        severity: "warning".to_owned(),
        created_ms: due_ms,
        due_ms,
        retry_at_ms: due_ms,
        attempts: 0,
        state: NotificationState::Pending,
        error: None,
        finished_ms: None,
        body: body.to_owned(),
    }
}

async fn definitions_are_replaced_and_deleted(store: &Arc<dyn Store>) {
    let store = &**store;
    let id = Uuid::now_v7();
    for kind in [DefinitionKind::Rule, DefinitionKind::Channel, DefinitionKind::Silence] {
        apply(store, |tx| {
            tx.definitions(kind).upsert(id, "first");
            tx.definitions(kind).upsert(id, "second");
        })
        .await;
        assert_eq!(kind.list(store).await.unwrap(), [(id, "second".to_owned())]);
    }
    apply(store, |tx| {
        tx.definitions(DefinitionKind::Rule).delete(id);
        tx.definitions(DefinitionKind::Silence).delete(id);
    })
    .await;
    assert_conflict(store, |tx| tx.definitions(DefinitionKind::Rule).delete(id)).await;
    assert!(DefinitionKind::Rule.list(store).await.unwrap().is_empty());
    assert_eq!(DefinitionKind::Channel.list(store).await.unwrap().len(), 1);
}

async fn one_incident_is_open_per_group_key(store: &Arc<dyn Store>) {
    let store = &**store;
    let (host, other_host) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut first = incident("host 1", T0);
    let mut resolved = alert(&first, host, "/");
    apply(store, |tx| {
        tx.incidents().upsert(&first);
        tx.alerts().insert(&resolved, Some("explanation"));
    })
    .await;
    // Another hub evaluated the same data; its incident and its alert are duplicates.
    assert_conflict(store, |tx| tx.incidents().upsert(&incident("host 1", T0 + 1))).await;
    assert_conflict(store, |tx| tx.alerts().insert(&alert(&first, host, "/"), None)).await;
    let second = incident("host 2", T0 + 10);
    apply(store, |tx| {
        tx.incidents().upsert(&second);
        tx.alerts().insert(&alert(&second, other_host, ""), None);
    })
    .await;
    assert_eq!(AlertRow::list(store, AlertFilter::Active(T0)).await.unwrap().len(), 2);
    assert_eq!(
        AlertRow::explanations(store, first.id).await.unwrap(),
        [(resolved.id, "explanation".to_owned())]
    );

    (resolved.firing_key, resolved.resolved_ms) = (None, Some(T0 + 50));
    (first.phase, first.quiet_since_ms) = (IncidentPhase::Resolved, Some(T0 + 50));
    apply(store, |tx| {
        tx.incidents().upsert(&first);
        tx.alerts().update(&resolved);
    })
    .await;
    // The alert is resolved already.
    assert_conflict(store, |tx| tx.alerts().update(&resolved)).await;
    assert_eq!(AlertRow::list(store, AlertFilter::Incident(first.id)).await.unwrap(), [resolved.clone()]);
    assert_eq!(IncidentRow::list_active(store, T0 + 51).await.unwrap(), std::slice::from_ref(&second));
    assert_eq!(IncidentRow::list_active(store, T0 + 50).await.unwrap().len(), 2);
    assert_filters(store, &first, &second).await;

    // PostgreSQL text cannot contain NUL.
    apply(store, |tx| tx.incident_events().insert(&event(first.id, IncidentEventKind::Fired, "x\0"))).await;
    let replaced = event(first.id, IncidentEventKind::Fired, "x\u{fffd}");
    let [late, early] = [T0 + 30, T0 + 20].map(|at_ms| acknowledged(&first, at_ms));
    assert_eq!(IncidentEventRow::list(store, first.id).await.unwrap(), [replaced, early, late]);
    let by_mira =
        IncidentEventRow { actor: "mira".to_owned(), ..event(first.id, IncidentEventKind::Comment, "x") };
    apply(store, |tx| tx.incident_events().insert(&by_mira)).await;
    for (actor, count) in [("mira", 1), ("", 3), ("vera", 0)] {
        assert_eq!(
            IncidentEventRow::count_of_actor(store, first.id, actor).await.unwrap(),
            count,
            "{actor:?}"
        );
    }
    apply(store, |tx| tx.incidents().delete_resolved_before(T0 + 51)).await;
    assert_eq!(IncidentRow::get(store, first.id).await.unwrap(), None);
    assert!(IncidentEventRow::list(store, first.id).await.unwrap().is_empty());
    assert!(AlertRow::list(store, AlertFilter::Incident(first.id)).await.unwrap().is_empty());
    assert_eq!(IncidentRow::get(store, second.id).await.unwrap(), Some(second), "open incidents are kept");
}

async fn assert_filters(store: &dyn Store, first: &IncidentRow, second: &IncidentRow) {
    let all = || IncidentFilter { to_ms: i64::MAX, limit: 10, ..IncidentFilter::default() };
    for (filter, expected) in [
        (all(), vec![second.id, first.id]),
        (IncidentFilter { limit: 1, ..all() }, vec![second.id]),
        (IncidentFilter { host: Some(Uuid::from_u128(1)), ..all() }, vec![first.id]),
        (IncidentFilter { rule: Some(Uuid::from_u128(7)), ..all() }, vec![second.id, first.id]),
        (IncidentFilter { rule: Some(Uuid::from_u128(8)), ..all() }, vec![]),
        (IncidentFilter { severity: Some("critical".into()), ..all() }, vec![]),
        (IncidentFilter { text: "B_1: 100 %".into(), ..all() }, vec![second.id, first.id]),
        (IncidentFilter { text: "w%1".into(), ..all() }, vec![]),
        (IncidentFilter { state: Some("open".into()), ..all() }, vec![second.id]),
        (IncidentFilter { state: Some("resolved".into()), ..all() }, vec![first.id]),
        (IncidentFilter { state: Some("acknowledged".into()), ..all() }, vec![]),
        (IncidentFilter { to_ms: T0 + 10, ..all() }, vec![first.id]),
        (IncidentFilter { to_ms: T0 + 10, to_id: Some(second.id), ..all() }, vec![first.id]),
        (IncidentFilter { to_ms: T0 + 10, to_id: Some(Uuid::max()), ..all() }, vec![second.id, first.id]),
    ] {
        let ids: Vec<Uuid> =
            IncidentRow::list(store, filter.clone()).await.unwrap().iter().map(|row| row.id).collect();
        assert_eq!(ids, expected, "{filter:?}");
    }
    assert_times(store, first, second).await;
    assert_host_tags(store, first, second).await;
    let host = AlertFilter::Host(Uuid::from_u128(1), T0 + 40, T0 + 60);
    assert_eq!(AlertRow::list(store, host).await.unwrap().len(), 1);
    // The alert of the second incident fires; the alert of the first incident ended at T0 + 50.
    for (filter, expected) in [
        (AlertFilter::Between(T0 + 50, i64::MAX, 10), vec![second.id, first.id]),
        (AlertFilter::Between(T0 + 51, i64::MAX, 10), vec![second.id]),
        (AlertFilter::Between(T0, i64::MAX, 1), vec![second.id]),
        (AlertFilter::Between(T0 + 50, second.opened_ms, 10), vec![first.id]),
        (AlertFilter::Between(T0 + 51, second.opened_ms + 1, 10), vec![second.id]),
        (AlertFilter::Between(T0 - 9_000, T0 - 9_000, 10), vec![]),
    ] {
        let rows = AlertRow::list(store, filter).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.incident).collect::<Vec<_>>(), expected);
    }
}

/// Review of the shares: alerts of a host displaced the alerts of others.
async fn recent_alerts_are_shared_by_hosts(store: &Arc<dyn Store>) {
    let store = &**store;
    let incidents = ["noisy", "quiet"].map(|key| incident(key, T0));
    let noisy = (0..5).map(|n| AlertRow {
        // Newer than the alerts of other tests on the same store.
        fired_ms: T0 + 365 * 86_400_000 + n,
        ..alert(&incidents[0], Uuid::from_u128(9), &n.to_string())
    });
    let alerts: Vec<AlertRow> = noisy.chain([alert(&incidents[1], Uuid::from_u128(8), "")]).collect();
    apply(store, |tx| {
        incidents.iter().for_each(|incident| tx.incidents().upsert(incident));
        alerts.iter().for_each(|alert| tx.alerts().insert(alert, None));
    })
    .await;
    let rows = AlertRow::list(store, AlertFilter::Between(T0, i64::MAX, 1_000)).await.unwrap();
    let hosts = rows.iter().map(|row| row.host).collect::<std::collections::BTreeSet<_>>().len();
    // The newest alert of each host, and the newest of the others.
    let limit = i64::try_from(hosts).unwrap() + 1;
    let rows = AlertRow::list(store, AlertFilter::Between(T0, i64::MAX, limit)).await.unwrap();
    let listed: Vec<usize> = (0..6).filter(|index| rows.contains(&alerts[*index])).collect();
    assert_eq!(listed, [3, 4, 5]);
}

fn acknowledged(incident: &IncidentRow, at_ms: i64) -> IncidentEventRow {
    IncidentEventRow { at_ms, ..event(incident.id, IncidentEventKind::Acknowledged, "") }
}

/// Statistics read the alerts and the first acknowledgments of incidents that were open since a time.
async fn assert_times(store: &dyn Store, first: &IncidentRow, second: &IncidentRow) {
    apply(store, |tx| {
        tx.incident_events().insert(&acknowledged(first, T0 + 30));
        tx.incident_events().insert(&acknowledged(first, T0 + 20));
    })
    .await;
    for (since_ms, limit, expected) in [
        (T0 + 50, 9, vec![(second.id, T0 + 10, None), (first.id, T0, Some(T0 + 50))]),
        (T0 + 50, 1, vec![(second.id, T0 + 10, None)]),
        (T0 + 51, 9, vec![(second.id, T0 + 10, None)]),
    ] {
        let times = AlertTimes::list(store, since_ms, limit).await.unwrap();
        let times: Vec<_> = times.iter().map(|row| (row.incident, row.fired_ms, row.resolved_ms)).collect();
        assert_eq!(times, expected);
    }
    assert_eq!(AlertTimes::acknowledgments(store, T0 + 50, 9).await.unwrap(), [(first.id, T0 + 20)]);
    assert!(AlertTimes::acknowledgments(store, T0 + 51, 9).await.unwrap().is_empty());
}

/// Finding M3: incidents of hidden hosts are not found by any filter.
async fn assert_host_tags(store: &dyn Store, first: &IncidentRow, second: &IncidentRow) {
    let [host, other_host] = [1, 2].map(Uuid::from_u128);
    let mut hidden = alert(first, other_host, "/hidden");
    (hidden.fired_ms, hidden.rule) = (T0 - 1_000, Uuid::from_u128(9));
    apply(store, |tx| {
        tx.host_tags().set(perfwatch_model::HostId(host), &["env=a".to_owned(), "x".to_owned()]);
        tx.host_tags().set(perfwatch_model::HostId(other_host), &["env=ab".to_owned(), "ENV=a".to_owned()]);
        tx.alerts().insert(&hidden, None);
    })
    .await;
    let visible = |tags: &[&str]| IncidentFilter {
        to_ms: i64::MAX,
        limit: 10,
        host_tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        ..IncidentFilter::default()
    };
    for (filter, expected) in [
        (visible(&["env=a"]), vec![(first.id, first.opened_ms)]),
        (visible(&["env"]), vec![]),
        (visible(&["nv=a", "none"]), vec![]),
        (visible(&["none", "env=ab"]), vec![(second.id, second.opened_ms), (first.id, T0 - 1_000)]),
        (visible(&["x", "env=ab"]), vec![(second.id, second.opened_ms), (first.id, T0 - 1_000)]),
        (IncidentFilter { limit: 1, ..visible(&["x"]) }, vec![(first.id, first.opened_ms)]),
        (IncidentFilter { rule: Some(Uuid::from_u128(9)), ..visible(&["x"]) }, vec![]),
        (IncidentFilter { host: Some(other_host), ..visible(&["x"]) }, vec![]),
        (IncidentFilter { host: Some(host), ..visible(&["x"]) }, vec![(first.id, first.opened_ms)]),
        (IncidentFilter { to_ms: first.opened_ms, ..visible(&["x"]) }, vec![]),
        (
            IncidentFilter { to_ms: first.opened_ms, to_id: Some(Uuid::max()), ..visible(&["x"]) },
            vec![(first.id, first.opened_ms)],
        ),
    ] {
        let rows = IncidentRow::list(store, filter.clone()).await.unwrap();
        let found: Vec<(Uuid, i64)> = rows.iter().map(|row| (row.id, row.opened_ms)).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
    hidden.resolved_ms = Some(T0);
    hidden.firing_key = None;
    apply(store, |tx| tx.alerts().update(&hidden)).await;
}

async fn notifications_are_delivered_in_order(store: &Arc<dyn Store>) {
    let store = &**store;
    let (incident, first, second) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let enqueue = |tx: &mut Transaction, channel, due_ms, body, key| {
        tx.notifications().enqueue(&notification(incident, channel, due_ms, body), key);
    };
    let merge_key = Some("first updated");
    apply(store, |tx| {
        enqueue(tx, first, T0 + 5, "b", None);
        enqueue(tx, second, T0 + 5, "c", None);
        enqueue(tx, first, T0, "a", None);
        enqueue(tx, first, T0 + 30, "outdated", merge_key);
        enqueue(tx, first, T0 + 60, "newest", merge_key);
    })
    .await;
    let severities = ["info", "warning", "critical"];
    let due_at = |now_ms, limit| Outbox::due(store, first, severities, now_ms, limit);
    let mut channels = Outbox::channels_due(store, T0 + 5).await.unwrap();
    channels.sort();
    assert_eq!(channels, [first, second]);
    assert_eq!(Outbox::channels_due(store, T0).await.unwrap(), [first]);
    let due = due_at(T0 + 5, 10).await.unwrap();
    let bodies: Vec<&str> = due.iter().map(|row| row.body.as_str()).collect();
    assert_eq!(bodies, ["a", "b"]);
    let critical = Outbox::due(store, first, ["critical"; 3], T0 + 5, 10).await.unwrap();
    assert!(critical.is_empty());
    let merged = due_at(T0 + 30, 10).await.unwrap();
    assert_eq!((merged.len(), merged[2].body.as_str(), merged[2].due_ms), (3, "newest", T0 + 30));
    // A notification whose delivery began is not merged.
    let sending = merged[2].id;
    apply(store, |tx| {
        tx.notifications().mark_sending(sending);
        enqueue(tx, first, T0 + 30, "next", merge_key);
    })
    .await;
    assert_eq!(due_at(T0 + 30, 10).await.unwrap().len(), 4);
    apply(store, |tx| tx.notifications().finish(sending, NotificationState::Sent, None, T0 + 30)).await;
    apply(store, |tx| tx.notifications().retry_at(due[0].id, T0 + 100, "refused")).await;
    let retried = due_at(T0 + 5, 1).await.unwrap().remove(0);
    assert_eq!((retried.attempts, retried.retry_at_ms), (1, T0 + 100));
    assert_eq!(retried.error.as_deref(), Some("refused"));
    apply(store, |tx| tx.notifications().finish(due[0].id, NotificationState::Sent, None, T0 + 101)).await;
    assert_conflict(store, |tx| {
        tx.notifications().finish(due[0].id, NotificationState::Sent, None, T0 + 102);
    })
    .await;
    assert!(Outbox::was_notified(store, first, incident).await.unwrap());
    apply(store, |tx| tx.notifications().finish(due[1].id, NotificationState::Failed, Some("400"), T0 + 103))
        .await;
    assert_eq!(Outbox::failed_since(store, T0).await.unwrap(), 1);
    let failed = NotificationFilter {
        state: Some(NotificationState::Failed),
        limit: 9,
        ..NotificationFilter::default()
    };
    assert_eq!(Outbox::list(store, failed).await.unwrap()[0].id, due[1].id);
    apply(store, |tx| {
        tx.notifications().requeue(due[1].id, T0 + 200);
        tx.notifications().suppress_for_channel(second, T0 + 201);
    })
    .await;
    let of_second = NotificationFilter { channel: Some(second), limit: 9, ..NotificationFilter::default() };
    assert_eq!(Outbox::list(store, of_second).await.unwrap()[0].state, NotificationState::Suppressed);
    assert_eq!(due_at(T0 + 200, 10).await.unwrap().len(), 2);
}

async fn postponed_notification_blocks_no_other(store: &Arc<dyn Store>) {
    let store = &**store;
    let (incident, channel) = (Uuid::now_v7(), Uuid::now_v7());
    apply(store, |tx| {
        tx.notifications().enqueue(&notification(incident, channel, T0, "first"), None);
        tx.notifications().enqueue(&notification(incident, channel, T0 + 1, "second"), None);
    })
    .await;
    let due_at = |now_ms| Outbox::due(store, channel, ["warning"; 3], now_ms, 10);
    let id = due_at(T0).await.unwrap()[0].id;
    apply(store, |tx| {
        tx.notifications().set_body(id, "with results");
        tx.notifications().postpone(id, T0 + 500, "greylisted");
    })
    .await;
    assert_eq!(due_at(T0 + 499).await.unwrap().len(), 1);
    let postponed = due_at(T0 + 500).await.unwrap().remove(1);
    assert_eq!((postponed.id, postponed.attempts, postponed.body.as_str()), (id, 1, "with results"));
    assert_eq!((postponed.retry_at_ms, postponed.error.as_deref()), (T0 + 500, Some("greylisted")));
}

async fn notifications_are_counted_by_channel_and_state(store: &Arc<dyn Store>) {
    let store = &**store;
    let (incident, channel, other) = (Uuid::now_v7(), Uuid::from_u128(1), Uuid::from_u128(2));
    apply(store, |tx| {
        [channel, channel, channel, other].iter().for_each(|channel| {
            tx.notifications().enqueue(&notification(incident, *channel, T0, "{}"), None);
        });
    })
    .await;
    let filter = NotificationFilter { channel: Some(channel), limit: 9, ..NotificationFilter::default() };
    let rows = Outbox::list(store, filter).await.unwrap();
    apply(store, |tx| {
        tx.notifications().finish(rows[0].id, NotificationState::Sent, None, T0 + 10);
        tx.notifications().finish(rows[1].id, NotificationState::Failed, Some("x"), T0 + 20);
        tx.notifications().retry_at(rows[2].id, T0 + 30, "unavailable");
    })
    .await;
    use NotificationState::{Failed, Pending, Sent};
    let count = |channel, state, error_count| NotificationCount { channel, state, count: 1, error_count };
    let all = [
        count(channel, Failed, 1),
        count(channel, Pending, 1),
        count(channel, Sent, 0),
        count(other, Pending, 0),
    ];
    // Other cases have channels of their own.
    let count_since = async |since_ms| {
        let mut counts = Outbox::count(store, since_ms).await.unwrap();
        counts.retain(|count| [channel, other].contains(&count.channel));
        counts
    };
    assert_eq!(count_since(T0 + 10).await, all);
    assert_eq!(count_since(T0 + 11).await.len(), 3, "an older delivery is not counted");
}

async fn host_last_seen_is_replaced(store: &Arc<dyn Store>) {
    let store = &**store;
    let host = Uuid::now_v7();
    let row = HostLastSeen { host, last_seen_ms: 7, interval_ms: 300_000 };
    apply(store, |tx| {
        tx.host_last_seen().upsert(&HostLastSeen { host, last_seen_ms: 5, interval_ms: 1 });
        tx.host_last_seen().upsert(&row);
    })
    .await;
    assert_eq!(HostLastSeen::list(store).await.unwrap(), [row]);
    apply(store, |tx| tx.host_last_seen().delete(host)).await;
    assert!(HostLastSeen::list(store).await.unwrap().is_empty());
}

/// The CHECK constraints of the schema contain each value of the enums.
async fn state_columns_accept_every_value(store: &Arc<dyn Store>) {
    let store = &**store;
    let mut incident = incident("states", 0);
    for phase in IncidentPhase::ALL {
        (incident.phase, incident.quiet_since_ms) = (phase, Some(0));
        apply(store, |tx| tx.incidents().upsert(&incident)).await;
        assert_eq!(IncidentRow::get(store, incident.id).await.unwrap().unwrap().phase, phase);
    }
    let events = IncidentEventKind::ALL.map(|kind| event(incident.id, kind, "x"));
    apply(store, |tx| events.iter().for_each(|event| tx.incident_events().insert(event))).await;
    assert_eq!(IncidentEventRow::list(store, incident.id).await.unwrap(), events);

    let channel = Uuid::now_v7();
    let filter = || NotificationFilter { channel: Some(channel), limit: 1, ..NotificationFilter::default() };
    for state in NotificationState::ALL {
        apply(store, |tx| tx.notifications().enqueue(&notification(incident.id, channel, 0, "{}"), None))
            .await;
        let row = Outbox::list(store, filter()).await.unwrap().remove(0);
        apply(store, |tx| tx.notifications().finish(row.id, state, None, 1)).await;
        assert_eq!(Outbox::list(store, filter()).await.unwrap()[0].state, state);
    }
    let newest = Outbox::list(store, filter()).await.unwrap()[0].id;
    let older = NotificationFilter { before_id: Some(newest), limit: 9, ..filter() };
    let older = Outbox::list(store, older).await.unwrap();
    assert!(older.len() == NotificationState::ALL.len() - 1 && older.iter().all(|row| row.id < newest));
    apply(store, |tx| tx.notifications().suppress_for_channel(channel, 1)).await;

    let server = Uuid::now_v7();
    for trigger in CollectTrigger::ALL {
        let collection = CollectionRow {
            id: 0,
            server,
            finished_ms: 0,
            trigger,
            attempt: 1,
            duration_ms: 1,
            cause: None,
            error: None,
            steps: "[]".to_owned(),
        };
        apply(store, |tx| tx.collections().insert(&collection)).await;
        let collections = CollectionRow::list(store, server, Some(trigger), None, 9).await.unwrap();
        assert_eq!(collections.iter().map(|row| row.trigger).collect::<Vec<_>>(), [trigger]);
    }
    apply(store, |tx| tx.incidents().delete_resolved_before(1)).await;
    apply(store, |tx| tx.collections().purge(1, 1)).await;
    assert!(Outbox::list(store, filter()).await.unwrap().is_empty());
    assert!(CollectionRow::list(store, server, None, None, 1).await.unwrap().is_empty());
}

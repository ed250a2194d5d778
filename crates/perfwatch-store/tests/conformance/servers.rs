//! Servers without an agent, and the queue of looks at them.

use super::people::commit;
use perfwatch_store::jobs::{Hands, JobRow, Jobs, Lease};
use perfwatch_store::servers::{LookRow, ServerRow};
use perfwatch_store::{Change, CommitError, Store};
use uuid::Uuid;

async fn apply(store: &dyn Store, changes: impl IntoIterator<Item = Change>) {
    commit(store, changes).await.unwrap();
}

async fn conflicts(store: &dyn Store, changes: impl IntoIterator<Item = Change>) {
    assert_eq!(commit(store, changes).await, Err(CommitError::Conflict));
}

fn server(name: &str, enabled: bool) -> ServerRow {
    let body = format!("{{\"name\":\"{name}\"}}");
    ServerRow { enabled, interval_ms: 60_000, ..ServerRow::new(Uuid::now_v7(), body, Some(vec![1, 2, 3])) }
}

fn look(server: Uuid, at_ms: i64, cause: Option<&str>) -> LookRow {
    LookRow {
        id: 0,
        server,
        at_ms,
        kind: "scheduled".to_owned(),
        tries: 1,
        took_ms: 120,
        cause: cause.map(str::to_owned),
        error: cause.map(|cause| format!("it was {cause}")),
        steps: "[]".to_owned(),
    }
}

pub(crate) async fn servers_are_changed_by_who_saw_them(store: &dyn Store) {
    let (one, other) = (server("one", true), server("other", false));
    apply(store, [one.add(), other.add()]).await;
    assert_eq!(ServerRow::all(store).await.unwrap(), [one.clone(), other.clone()]);
    assert_eq!(ServerRow::resting(store).await.unwrap(), [other.id]);
    // Changed by one who saw this version, and by nobody who saw an older one.
    let changed = ServerRow { body: "{}".to_owned(), enabled: false, secret: Some(vec![9]), ..one.clone() };
    apply(store, [changed.change(1)]).await;
    conflicts(store, [changed.change(1)]).await;
    let found = ServerRow::one(store, one.id).await.unwrap().unwrap();
    assert_eq!(found, ServerRow { version: 2, ..changed.clone() });
    // Pinned once.
    apply(
        store,
        [
            ServerRow::pin(one.id, 1, "key z"),
            ServerRow::pin(one.id, 2, "key a"),
            ServerRow::pin(one.id, 2, "key b"),
        ],
    )
    .await;
    // A refusal is of the version that was tried.
    apply(store, [ServerRow::refuse(one.id, 1, "login_refused", None)]).await;
    assert_eq!(ServerRow::one(store, one.id).await.unwrap().unwrap().refused, None);
    apply(store, [ServerRow::refuse(one.id, 2, "host_key_changed", Some("key c"))]).await;
    let found = ServerRow::one(store, one.id).await.unwrap().unwrap();
    assert_eq!(found.host_key.as_deref(), Some("key a"));
    assert_eq!(
        (found.refused.as_deref(), found.shown_key.as_deref()),
        (Some("host_key_changed"), Some("key c"))
    );
    apply(store, [found.change(2), ServerRow::trust(one.id, "key c")]).await;
    let found = ServerRow::one(store, one.id).await.unwrap().unwrap();
    assert_eq!((found.host_key.as_deref(), found.refused, found.shown_key), (Some("key c"), None, None));
    apply(store, [ServerRow::reseal(one.id, &[8], &[7]), ServerRow::reseal(one.id, &[9], &[6])]).await;
    assert_eq!(ServerRow::one(store, one.id).await.unwrap().unwrap().secret, Some(vec![6]));
    // What looks leave behind.
    for (at_ms, cause) in [(1_000, None), (2_000, Some("timed_out")), (3_000, Some("closed"))] {
        let look = look(one.id, at_ms, cause);
        let carried = cause.is_none().then_some(&b"counters"[..]);
        apply(store, [look.add(), look.note(3, carried), look.note(2, Some(b"old"))]).await;
    }
    let found = ServerRow::one(store, one.id).await.unwrap().unwrap();
    assert_eq!((found.last_ms, found.last_ok_ms, found.last_took_ms), (Some(3_000), Some(1_000), Some(120)));
    assert_eq!(
        (found.last_cause.as_deref(), found.last_error.as_deref()),
        (Some("closed"), Some("it was closed"))
    );
    assert_eq!(ServerRow::carried(store, one.id).await.unwrap().as_deref(), Some(&b"counters"[..]));
    let looks = LookRow::list(store, one.id, None, 2).await.unwrap();
    assert_eq!(looks.iter().map(|look| look.at_ms).collect::<Vec<_>>(), [3_000, 2_000]);
    let looks = LookRow::list(store, one.id, Some(looks[1].id), 2).await.unwrap();
    assert_eq!(looks.iter().map(|look| look.at_ms).collect::<Vec<_>>(), [1_000]);
    apply(store, [LookRow::forget(2_500, 1_500)]).await;
    let looks = LookRow::list(store, one.id, None, 9).await.unwrap();
    assert_eq!(looks.iter().map(|look| look.at_ms).collect::<Vec<_>>(), [3_000, 2_000]);
    apply(store, ServerRow::remove(one.id)).await;
    conflicts(store, ServerRow::remove(one.id)).await;
    assert!(LookRow::list(store, one.id, None, 9).await.unwrap().is_empty());
    apply(store, ServerRow::remove(other.id)).await;
}

async fn claim(store: &dyn Store, now_ms: i64, limit: i64) -> (Uuid, Vec<JobRow>) {
    let lease = Uuid::now_v7();
    let (times, most) = (Lease { now_ms, until_ms: now_ms + 90_000 }, Hands { all: limit, troubled: limit });
    apply(store, [Jobs::claim("one", lease, times, most)]).await;
    let claimed = Jobs::claimed(store, lease).await.unwrap();
    (lease, claimed.into_iter().map(|(job, _)| job).collect())
}

async fn states(store: &dyn Store, now_ms: i64) -> [i64; 5] {
    let counts = Jobs::counts(store, now_ms, 0).await.unwrap();
    [counts.waiting, counts.delayed, counts.active, counts.completed, counts.failed]
}

pub(crate) async fn each_look_is_made_once(store: &dyn Store) {
    let servers: Vec<ServerRow> = (0..4).map(|at| server(&at.to_string(), at < 3)).collect();
    apply(store, servers.iter().map(ServerRow::add)).await;
    let ids: Vec<Uuid> = servers.iter().map(|server| server.id).collect();
    let unplanned = Jobs::unplanned(store).await.unwrap();
    assert_eq!(unplanned.len(), 3);
    // Each once, whoever plans; what rests is not planned.
    for (at, id) in ids.iter().enumerate() {
        let run_ms = 1_000 * (3 - i64::try_from(at).unwrap());
        apply(store, [Jobs::plan(*id, run_ms), Jobs::plan(*id, 99_000)]).await;
    }
    assert!(Jobs::unplanned(store).await.unwrap().is_empty());
    assert_eq!(ServerRow::one(store, ids[0]).await.unwrap().unwrap().next_ms, Some(3_000));
    assert_eq!(Jobs::next_ms(store).await.unwrap(), Some(1_000));
    assert_eq!(states(store, 2_000).await, [2, 1, 0, 0, 0]);
    // The longest overdue first, none twice.
    let (lease, first) = claim(store, 2_500, 1).await;
    assert_eq!((first.len(), first[0].server, first[0].tries), (1, ids[2], 1));
    let (other, second) = claim(store, 2_500, 5).await;
    assert_eq!((second.len(), second[0].server), (1, ids[1]));
    assert_eq!(states(store, 2_500).await, [0, 1, 2, 0, 0]);
    // Asked for while it is being made: no second one. One that is planned comes at once.
    apply(store, [Jobs::hurry(ids[2], 2_600), Jobs::hurry(ids[0], 2_600), Jobs::hurry(ids[3], 2_600)]).await;
    assert_eq!(states(store, 2_600).await, [1, 0, 2, 0, 0]);
    assert_eq!(Jobs::list(store, "waiting", 9).await.unwrap()[0].reason, "asked");
    // Done with the next one planned in the same commit; only by who has it.
    conflicts(store, [Jobs::finish(first[0].id, other, 3_000, None)]).await;
    apply(store, [Jobs::finish(first[0].id, lease, 3_000, None), Jobs::plan(ids[2], 61_000)]).await;
    conflicts(store, [Jobs::finish(first[0].id, lease, 3_000, None)]).await;
    // Tried again later, held by nobody meanwhile.
    apply(store, [Jobs::again(second[0].id, other, 7_500, "closed")]).await;
    assert_eq!(states(store, 3_000).await, [1, 2, 0, 1, 0]);
    let (_, third) = claim(store, 3_000, 9).await;
    assert_eq!(third[0].server, ids[0]);
    leases_end_and_queues_pause(store, &ids).await;
}

async fn leases_end_and_queues_pause(store: &dyn Store, ids: &[Uuid]) {
    // Whoever had it is gone: after its time it is anyone's, and the late one's word counts for nothing.
    assert_eq!(Jobs::next_ms(store).await.unwrap(), Some(7_500));
    assert!(claim(store, 7_000, 9).await.1.is_empty());
    let (late, found) = claim(store, 93_000, 9).await;
    assert_eq!(
        found.iter().map(|job| (job.server, job.tries)).collect::<Vec<_>>(),
        [(ids[0], 2), (ids[1], 2), (ids[2], 1)]
    );
    apply(
        store,
        [Jobs::finish(found[1].id, late, 94_000, Some("no such name")), Jobs::plan(ids[1], 120_000)],
    )
    .await;
    apply(store, [Jobs::give_back("two"), Jobs::give_back("one")]).await;
    assert_eq!(states(store, 94_000).await, [2, 1, 0, 1, 1]);
    // A failed one is tried again though the next is planned: that one is made now.
    let failed = Jobs::list(store, "failed", 9).await.unwrap();
    assert_eq!(failed[0].error.as_deref(), Some("no such name"));
    apply(store, [Jobs::retry(failed[0].id), Jobs::hurry(ids[1], 95_000)]).await;
    conflicts(store, [Jobs::retry(failed[0].id)]).await;
    assert_eq!(states(store, 95_000).await, [3, 0, 0, 1, 0]);
    // Paused, nothing is begun, at any hub.
    apply(store, [Jobs::pause(true)]).await;
    assert!(Jobs::paused(store).await.unwrap() && Jobs::next_ms(store).await.unwrap().is_none());
    assert!(claim(store, 99_000, 9).await.1.is_empty());
    apply(store, [Jobs::pause(false)]).await;
    // Another rhythm moves what is planned; one that rests or is refused has none.
    apply(
        store,
        [
            Jobs::replan(ids[0], 200_000),
            ServerRow::refuse(ids[2], 1, "login_refused", None),
            Jobs::unplan(ids[2]),
        ],
    )
    .await;
    apply(store, [Jobs::replan(ids[2], 100_000), Jobs::hurry(ids[2], 100_000)]).await;
    assert_eq!(states(store, 99_000).await, [1, 1, 0, 1, 0]);
    let counts = Jobs::counts(store, 99_000, 3_000).await.unwrap();
    assert_eq!((counts.lately, counts.failed_lately, counts.took_ms, counts.longest_ms), (1, 0, 500, 500));
    assert_eq!(counts.late_ms, 4_000);
    apply(store, [Jobs::clean(3_001, 0)]).await;
    assert_eq!(states(store, 99_000).await, [1, 1, 0, 0, 0]);
    for id in ids {
        apply(store, ServerRow::remove(*id)).await;
    }
    assert_eq!(states(store, 99_000).await, [0; 5]);
}

pub(crate) async fn those_in_trouble_have_their_place_but_not_all_hands(store: &dyn Store) {
    let servers: Vec<ServerRow> = (0..6).map(|at| server(&at.to_string(), true)).collect();
    apply(store, servers.iter().map(ServerRow::add)).await;
    let ids: Vec<Uuid> = servers.iter().map(|server| server.id).collect();
    let causes = [Some("timed_out"), Some("closed"), None, Some("internal"), Some("timed_out")];
    for ((id, cause), run_ms) in ids.iter().zip(causes).zip(1_000..) {
        apply(store, [look(*id, 900, cause).note(1, None), Jobs::plan(*id, run_ms)]).await;
    }
    // Nobody looked at the last one yet; for the one before it, somebody waits.
    apply(store, [Jobs::plan(ids[5], 1_005), Jobs::hurry(ids[4], 999)]).await;
    let take = async |all, troubled| {
        let lease = Uuid::now_v7();
        let times = Lease { now_ms: 2_000, until_ms: 90_000 };
        apply(store, [Jobs::claim("one", lease, times, Hands { all, troubled })]).await;
        let claimed = Jobs::claimed(store, lease).await.unwrap();
        let at = |id| ids.iter().position(|known| *known == id).unwrap();
        claimed.into_iter().map(|(job, troubled)| (at(job.server), troubled)).collect::<Vec<_>>()
    };
    // In the order of their times: the first in trouble is not put off for others.
    assert_eq!(take(3, 1).await, [(4, false), (0, true), (2, false)]);
    assert_eq!(take(9, 0).await, [(3, false), (5, false)]);
    assert_eq!(take(9, 1).await, [(1, true)]);
    for id in ids {
        apply(store, ServerRow::remove(id)).await;
    }
}

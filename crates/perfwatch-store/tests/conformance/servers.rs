//! Servers without an agent, and the queue of looks at them.

use super::accounts::commit;
use perfwatch_store::collection_jobs::{CollectionJobs, JobRow, Lease, WorkerCapacity};
use perfwatch_store::servers::{CollectionRow, ServerRow};
use perfwatch_store::{CommitError, SqlStatement, Store};
use uuid::Uuid;

async fn apply(store: &dyn Store, changes: impl IntoIterator<Item = SqlStatement>) {
    commit(store, changes).await.unwrap();
}

async fn conflicts(store: &dyn Store, changes: impl IntoIterator<Item = SqlStatement>) {
    assert_eq!(commit(store, changes).await, Err(CommitError::Conflict));
}

fn server(name: &str, enabled: bool) -> ServerRow {
    let body = format!("{{\"name\":\"{name}\"}}");
    ServerRow { enabled, interval_ms: 60_000, ..ServerRow::new(Uuid::now_v7(), body, Some(vec![1, 2, 3])) }
}

fn collection_row(server: Uuid, at_ms: i64, cause: Option<&str>) -> CollectionRow {
    CollectionRow {
        id: 0,
        server,
        finished_ms: at_ms,
        trigger: "scheduled".to_owned(),
        attempt: 1,
        duration_ms: 120,
        cause: cause.map(str::to_owned),
        error: cause.map(|cause| format!("it was {cause}")),
        steps: "[]".to_owned(),
    }
}

pub(crate) async fn server_updates_check_version(store: &dyn Store) {
    let (one, other) = (server("one", true), server("other", false));
    apply(store, [one.insert(), other.insert()]).await;
    assert_eq!(ServerRow::list(store).await.unwrap(), [one.clone(), other.clone()]);
    assert_eq!(ServerRow::list_disabled(store).await.unwrap(), [other.id]);
    // Changed by one who saw this version, and by nobody who saw an older one.
    let changed = ServerRow {
        body: "{}".to_owned(),
        enabled: false,
        encrypted_credentials: Some(vec![9]),
        ..one.clone()
    };
    apply(store, [changed.update(1)]).await;
    conflicts(store, [changed.update(1)]).await;
    let found = ServerRow::get(store, one.id).await.unwrap().unwrap();
    assert_eq!(found, ServerRow { version: 2, ..changed.clone() });
    // Pinned once.
    apply(
        store,
        [
            ServerRow::pin_host_key(one.id, 1, "key z"),
            ServerRow::pin_host_key(one.id, 2, "key a"),
            ServerRow::pin_host_key(one.id, 2, "key b"),
        ],
    )
    .await;
    // A refusal is of the version that was tried.
    apply(store, [ServerRow::block(one.id, 1, "login_refused", None)]).await;
    assert_eq!(ServerRow::get(store, one.id).await.unwrap().unwrap().blocked_reason, None);
    apply(store, [ServerRow::block(one.id, 2, "host_key_changed", Some("key c"))]).await;
    let found = ServerRow::get(store, one.id).await.unwrap().unwrap();
    assert_eq!(found.host_key.as_deref(), Some("key a"));
    assert_eq!(
        (found.blocked_reason.as_deref(), found.offered_host_key.as_deref()),
        (Some("host_key_changed"), Some("key c"))
    );
    apply(store, [found.update(2), ServerRow::accept_host_key(one.id, "key c")]).await;
    let found = ServerRow::get(store, one.id).await.unwrap().unwrap();
    assert_eq!(
        (found.host_key.as_deref(), found.blocked_reason, found.offered_host_key),
        (Some("key c"), None, None)
    );
    apply(store, [ServerRow::reencrypt(one.id, &[8], &[7]), ServerRow::reencrypt(one.id, &[9], &[6])]).await;
    assert_eq!(ServerRow::get(store, one.id).await.unwrap().unwrap().encrypted_credentials, Some(vec![6]));
    // What looks leave behind.
    for (at_ms, cause) in [(1_000, None), (2_000, Some("timed_out")), (3_000, Some("closed"))] {
        let look = collection_row(one.id, at_ms, cause);
        let carried = cause.is_none().then_some(&b"counters"[..]);
        apply(store, [look.insert(), look.update_server(3, carried), look.update_server(2, Some(b"old"))])
            .await;
    }
    let found = ServerRow::get(store, one.id).await.unwrap().unwrap();
    assert_eq!(
        (found.last_run_ms, found.last_success_ms, found.last_duration_ms),
        (Some(3_000), Some(1_000), Some(120))
    );
    assert_eq!(
        (found.last_cause.as_deref(), found.last_error.as_deref()),
        (Some("closed"), Some("it was closed"))
    );
    assert_eq!(ServerRow::counter_state(store, one.id).await.unwrap().as_deref(), Some(&b"counters"[..]));
    let looks = CollectionRow::list(store, one.id, None, 2).await.unwrap();
    assert_eq!(looks.iter().map(|look| look.finished_ms).collect::<Vec<_>>(), [3_000, 2_000]);
    let looks = CollectionRow::list(store, one.id, Some(looks[1].id), 2).await.unwrap();
    assert_eq!(looks.iter().map(|look| look.finished_ms).collect::<Vec<_>>(), [1_000]);
    apply(store, [CollectionRow::purge(2_500, 1_500)]).await;
    let looks = CollectionRow::list(store, one.id, None, 9).await.unwrap();
    assert_eq!(looks.iter().map(|look| look.finished_ms).collect::<Vec<_>>(), [3_000, 2_000]);
    apply(store, ServerRow::delete(one.id)).await;
    conflicts(store, ServerRow::delete(one.id)).await;
    assert!(CollectionRow::list(store, one.id, None, 9).await.unwrap().is_empty());
    apply(store, ServerRow::delete(other.id)).await;
}

async fn claim(store: &dyn Store, now_ms: i64, limit: i64) -> (Uuid, Vec<JobRow>) {
    let lease = Uuid::now_v7();
    let (times, most) =
        (Lease { now_ms, until_ms: now_ms + 90_000 }, WorkerCapacity { total: limit, failing: limit });
    apply(store, [CollectionJobs::claim("one", lease, times, most)]).await;
    let claimed = CollectionJobs::claimed_by(store, lease).await.unwrap();
    (lease, claimed.into_iter().map(|(job, _)| job).collect())
}

async fn states(store: &dyn Store, now_ms: i64) -> [i64; 5] {
    let counts = CollectionJobs::stats(store, now_ms, 0).await.unwrap();
    [counts.waiting, counts.delayed, counts.active, counts.completed, counts.failed]
}

pub(crate) async fn each_job_is_claimed_once(store: &dyn Store) {
    let servers: Vec<ServerRow> = (0..4).map(|at| server(&at.to_string(), at < 3)).collect();
    apply(store, servers.iter().map(ServerRow::insert)).await;
    let ids: Vec<Uuid> = servers.iter().map(|server| server.id).collect();
    let unplanned = CollectionJobs::unscheduled(store).await.unwrap();
    assert_eq!(unplanned.len(), 3);
    // Each once, whoever plans; what rests is not planned.
    for (at, id) in ids.iter().enumerate() {
        let run_ms = 1_000 * (3 - i64::try_from(at).unwrap());
        apply(store, [CollectionJobs::schedule(*id, run_ms), CollectionJobs::schedule(*id, 99_000)]).await;
    }
    assert!(CollectionJobs::unscheduled(store).await.unwrap().is_empty());
    assert_eq!(ServerRow::get(store, ids[0]).await.unwrap().unwrap().next_run_ms, Some(3_000));
    assert_eq!(CollectionJobs::next_due_ms(store).await.unwrap(), Some(1_000));
    assert_eq!(states(store, 2_000).await, [2, 1, 0, 0, 0]);
    // The longest overdue first, none twice.
    let (lease, first) = claim(store, 2_500, 1).await;
    assert_eq!((first.len(), first[0].server, first[0].attempts), (1, ids[2], 1));
    let (other, second) = claim(store, 2_500, 5).await;
    assert_eq!((second.len(), second[0].server), (1, ids[1]));
    assert_eq!(states(store, 2_500).await, [0, 1, 2, 0, 0]);
    // Asked for while it is being made: no second one. One that is planned comes at once.
    apply(
        store,
        [
            CollectionJobs::run_now(ids[2], 2_600),
            CollectionJobs::run_now(ids[0], 2_600),
            CollectionJobs::run_now(ids[3], 2_600),
        ],
    )
    .await;
    assert_eq!(states(store, 2_600).await, [1, 0, 2, 0, 0]);
    assert_eq!(CollectionJobs::list(store, "waiting", 9).await.unwrap()[0].trigger, "asked");
    // Done with the next one planned in the same commit; only by who has it.
    conflicts(store, [CollectionJobs::finish(first[0].id, other, 3_000, None)]).await;
    apply(
        store,
        [CollectionJobs::finish(first[0].id, lease, 3_000, None), CollectionJobs::schedule(ids[2], 61_000)],
    )
    .await;
    conflicts(store, [CollectionJobs::finish(first[0].id, lease, 3_000, None)]).await;
    // Tried again later, held by nobody meanwhile.
    apply(store, [CollectionJobs::retry_at(second[0].id, other, 7_500, "closed")]).await;
    assert_eq!(states(store, 3_000).await, [1, 2, 0, 1, 0]);
    let (_, third) = claim(store, 3_000, 9).await;
    assert_eq!(third[0].server, ids[0]);
    leases_expire_and_queue_pauses(store, &ids).await;
}

async fn leases_expire_and_queue_pauses(store: &dyn Store, ids: &[Uuid]) {
    // Whoever had it is gone: after its time it is anyone's, and the late one's word counts for nothing.
    assert_eq!(CollectionJobs::next_due_ms(store).await.unwrap(), Some(7_500));
    assert!(claim(store, 7_000, 9).await.1.is_empty());
    let (late, found) = claim(store, 93_000, 9).await;
    assert_eq!(
        found.iter().map(|job| (job.server, job.attempts)).collect::<Vec<_>>(),
        [(ids[0], 2), (ids[1], 2), (ids[2], 1)]
    );
    apply(
        store,
        [
            CollectionJobs::finish(found[1].id, late, 94_000, Some("no such name")),
            CollectionJobs::schedule(ids[1], 120_000),
        ],
    )
    .await;
    apply(store, [CollectionJobs::release_all("two"), CollectionJobs::release_all("one")]).await;
    assert_eq!(states(store, 94_000).await, [2, 1, 0, 1, 1]);
    // A failed one is tried again though the next is planned: that one is made now.
    let failed = CollectionJobs::list(store, "failed", 9).await.unwrap();
    assert_eq!(failed[0].error.as_deref(), Some("no such name"));
    apply(store, [CollectionJobs::retry(failed[0].id), CollectionJobs::run_now(ids[1], 95_000)]).await;
    conflicts(store, [CollectionJobs::retry(failed[0].id)]).await;
    assert_eq!(states(store, 95_000).await, [3, 0, 0, 1, 0]);
    // Paused, nothing is begun, at any hub.
    apply(store, [CollectionJobs::set_paused(true)]).await;
    assert!(
        CollectionJobs::is_paused(store).await.unwrap()
            && CollectionJobs::next_due_ms(store).await.unwrap().is_none()
    );
    assert!(claim(store, 99_000, 9).await.1.is_empty());
    apply(store, [CollectionJobs::set_paused(false)]).await;
    // Another rhythm moves what is planned; one that rests or is refused has none.
    apply(
        store,
        [
            CollectionJobs::reschedule(ids[0], 200_000),
            ServerRow::block(ids[2], 1, "login_refused", None),
            CollectionJobs::cancel(ids[2]),
        ],
    )
    .await;
    apply(store, [CollectionJobs::reschedule(ids[2], 100_000), CollectionJobs::run_now(ids[2], 100_000)])
        .await;
    assert_eq!(states(store, 99_000).await, [1, 1, 0, 1, 0]);
    let counts = CollectionJobs::stats(store, 99_000, 3_000).await.unwrap();
    assert_eq!(
        (counts.finished_recently, counts.failed_recently, counts.duration_ms, counts.max_duration_ms),
        (1, 0, 500, 500)
    );
    assert_eq!(counts.max_delay_ms, 4_000);
    apply(store, [CollectionJobs::purge(3_001, 0)]).await;
    assert_eq!(states(store, 99_000).await, [1, 1, 0, 0, 0]);
    for id in ids {
        apply(store, ServerRow::delete(*id)).await;
    }
    assert_eq!(states(store, 99_000).await, [0; 5]);
}

pub(crate) async fn failing_servers_have_a_worker_quota(store: &dyn Store) {
    let servers: Vec<ServerRow> = (0..6).map(|at| server(&at.to_string(), true)).collect();
    apply(store, servers.iter().map(ServerRow::insert)).await;
    let ids: Vec<Uuid> = servers.iter().map(|server| server.id).collect();
    let causes = [Some("timed_out"), Some("closed"), None, Some("internal"), Some("timed_out")];
    for ((id, cause), run_ms) in ids.iter().zip(causes).zip(1_000..) {
        apply(
            store,
            [collection_row(*id, 900, cause).update_server(1, None), CollectionJobs::schedule(*id, run_ms)],
        )
        .await;
    }
    // Nobody looked at the last one yet; for the one before it, somebody waits.
    apply(store, [CollectionJobs::schedule(ids[5], 1_005), CollectionJobs::run_now(ids[4], 999)]).await;
    let take = async |all, troubled| {
        let lease = Uuid::now_v7();
        let times = Lease { now_ms: 2_000, until_ms: 90_000 };
        apply(
            store,
            [CollectionJobs::claim("one", lease, times, WorkerCapacity { total: all, failing: troubled })],
        )
        .await;
        let claimed = CollectionJobs::claimed_by(store, lease).await.unwrap();
        let at = |id| ids.iter().position(|known| *known == id).unwrap();
        claimed.into_iter().map(|(job, troubled)| (at(job.server), troubled)).collect::<Vec<_>>()
    };
    // In the order of their times: the first in trouble is not put off for others.
    assert_eq!(take(3, 1).await, [(4, false), (0, true), (2, false)]);
    assert_eq!(take(9, 0).await, [(3, false), (5, false)]);
    assert_eq!(take(9, 1).await, [(1, true)]);
    for id in ids {
        apply(store, ServerRow::delete(id)).await;
    }
}

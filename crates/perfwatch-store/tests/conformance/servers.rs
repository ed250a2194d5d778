//! Servers, collections and the collection queue.

use crate::support::{apply, assert_conflict, conformance};
use perfwatch_model::HostId;
use perfwatch_store::Store;
use perfwatch_store::agents::is_known_host;
use perfwatch_store::collection_jobs::{CollectionJobs, JobRow, JobState, Lease, WorkerCapacity};
use perfwatch_store::collections::{CollectTrigger, CollectionCount, CollectionRow};
use perfwatch_store::servers::ServerRow;
use std::sync::Arc;
use uuid::Uuid;

conformance! {
    hosts_of_servers_are_known,
    server_updates_check_version,
    host_key_is_pinned_and_replaced_on_request,
    collections_update_their_server,
    collections_are_counted_by_time_and_server,
    each_job_is_claimed_once,
    failing_servers_have_a_worker_quota,
}

fn server(name: &str, enabled: bool) -> ServerRow {
    let body = format!("{{\"name\":\"{name}\"}}");
    ServerRow { enabled, interval_ms: 60_000, ..ServerRow::new(Uuid::now_v7(), body, Some(vec![1, 2, 3])) }
}

fn collection(server: Uuid, finished_ms: i64, cause: Option<&str>) -> CollectionRow {
    CollectionRow {
        id: 0,
        server,
        finished_ms,
        trigger: CollectTrigger::Scheduled,
        attempt: 1,
        duration_ms: 120,
        cause: cause.map(str::to_owned),
        error: cause.map(|cause| format!("cause: {cause}")),
        steps: "[]".to_owned(),
    }
}

/// F21 (second review): a server that was never collected has no row of a host.
async fn hosts_of_servers_are_known(store: &Arc<dyn Store>) {
    let store = &**store;
    let server = server("web", false);
    assert_eq!(is_known_host(store, HostId(server.id)).await, Ok(false));
    apply(store, |tx| tx.servers().insert(&server)).await;
    assert_eq!(is_known_host(store, HostId(server.id)).await, Ok(true));
    apply(store, |tx| tx.servers().delete(server.id)).await;
}

async fn server_updates_check_version(store: &Arc<dyn Store>) {
    let store = &**store;
    let (enabled, disabled) = (server("enabled", true), server("disabled", false));
    apply(store, |tx| {
        tx.servers().insert(&enabled);
        tx.servers().insert(&disabled);
    })
    .await;
    assert_eq!(ServerRow::list(store).await.unwrap(), [enabled.clone(), disabled.clone()]);
    assert_eq!(ServerRow::list_disabled(store).await.unwrap(), [disabled.id]);
    // An update succeeds on the version that was read and conflicts afterwards.
    let updated = ServerRow {
        body: "{}".to_owned(),
        enabled: false,
        encrypted_credentials: Some(vec![9]),
        ..enabled.clone()
    };
    apply(store, |tx| tx.servers().update(&updated, 1)).await;
    assert_conflict(store, |tx| tx.servers().update(&updated, 1)).await;
    let stored = ServerRow::get(store, enabled.id).await.unwrap().unwrap();
    assert_eq!(stored, ServerRow { version: 2, ..updated.clone() });
    apply(store, |tx| {
        tx.servers().delete(enabled.id);
        tx.servers().delete(disabled.id);
    })
    .await;
    assert_conflict(store, |tx| tx.servers().delete(enabled.id)).await;
}

async fn host_key_is_pinned_and_replaced_on_request(store: &Arc<dyn Store>) {
    let store = &**store;
    let row = ServerRow { version: 2, ..server("pinned", true) };
    let id = row.id;
    apply(store, |tx| tx.servers().insert(&row)).await;
    // The first key of the current version is pinned.
    apply(store, |tx| {
        tx.servers().pin_host_key(id, 1, "key z");
        tx.servers().pin_host_key(id, 2, "key a");
        tx.servers().pin_host_key(id, 2, "key b");
    })
    .await;
    // A failure of an older version does not block the current one.
    apply(store, |tx| tx.servers().block(id, 1, "authentication_failed", None)).await;
    assert_eq!(ServerRow::get(store, id).await.unwrap().unwrap().blocked_reason, None);
    apply(store, |tx| tx.servers().block(id, 2, "host_key_changed", Some("key c"))).await;
    let stored = ServerRow::get(store, id).await.unwrap().unwrap();
    assert_eq!(stored.host_key.as_deref(), Some("key a"));
    assert_eq!(
        (stored.blocked_reason.as_deref(), stored.offered_host_key.as_deref()),
        (Some("host_key_changed"), Some("key c"))
    );
    apply(store, |tx| {
        tx.servers().update(&stored, 2);
        tx.servers().accept_host_key(id, "key c");
    })
    .await;
    let stored = ServerRow::get(store, id).await.unwrap().unwrap();
    assert_eq!(
        (stored.host_key.as_deref(), stored.blocked_reason, stored.offered_host_key),
        (Some("key c"), None, None)
    );
    apply(store, |tx| {
        tx.servers().reencrypt(id, &[8], &[7]);
        tx.servers().reencrypt(id, &[1, 2, 3], &[6]);
    })
    .await;
    assert_eq!(ServerRow::get(store, id).await.unwrap().unwrap().encrypted_credentials, Some(vec![6]));
    apply(store, |tx| tx.servers().reset_host_state(id)).await;
    assert_eq!(ServerRow::get(store, id).await.unwrap().unwrap().host_key, None);
    apply(store, |tx| tx.servers().delete(id)).await;
}

async fn collections_are_counted_by_time_and_server(store: &Arc<dyn Store>) {
    let store = &**store;
    let (first, second) = (server("first", true), server("second", true));
    let start_ms = 5_000_000;
    let count = |step, server, succeeded, failed, duration_ms| CollectionCount {
        step,
        server,
        succeeded,
        failed,
        duration_ms,
    };
    apply(store, |tx| {
        tx.servers().insert(&first);
        tx.servers().insert(&second);
        for (server, offset_ms, cause) in [
            (first.id, -1, None),
            (first.id, 0, None),
            (first.id, 999, Some("timed_out")),
            (second.id, 1, None),
            (second.id, 1_000, None),
            (second.id, 2_000, None),
        ] {
            tx.collections().insert(&collection(server, start_ms + offset_ms, cause));
        }
        let test = CollectionRow { trigger: CollectTrigger::Test, ..collection(first.id, start_ms, None) };
        tx.collections().insert(&test);
    })
    .await;
    let range = (start_ms, start_ms + 2_000);
    let mut counts = CollectionRow::counts(store, range, 1_000, false).await.unwrap();
    counts.sort_by_key(|count| count.step);
    assert_eq!(counts, [count(5_000, None, 2, 1, 360), count(5_001, None, 1, 0, 120)]);
    let mut counts = CollectionRow::counts(store, range, 1_000, true).await.unwrap();
    counts.sort_by_key(|count| (count.server != Some(first.id), count.step));
    let expected = [
        count(5_000, Some(first.id), 1, 1, 240),
        count(5_000, Some(second.id), 1, 0, 120),
        count(5_001, Some(second.id), 1, 0, 120),
    ];
    assert_eq!(counts, expected);
    apply(store, |tx| {
        tx.servers().delete(first.id);
        tx.servers().delete(second.id);
    })
    .await;
}

async fn collections_update_their_server(store: &Arc<dyn Store>) {
    let store = &**store;
    let row = server("collected", true);
    let id = row.id;
    apply(store, |tx| tx.servers().insert(&row)).await;
    for (finished_ms, cause) in
        [(1_000, None), (2_000, Some("timed_out")), (3_000, Some("connection_closed"))]
    {
        let collection = collection(id, finished_ms, cause);
        let counters = cause.is_none().then_some(&b"counters"[..]);
        apply(store, |tx| {
            tx.collections().insert(&collection);
            tx.collections().update_server(&collection, 1, counters);
            tx.collections().update_server(&collection, 7, Some(b"outdated"));
        })
        .await;
    }
    let stored = ServerRow::get(store, id).await.unwrap().unwrap();
    assert_eq!(
        (stored.last_run_ms, stored.last_success_ms, stored.last_duration_ms),
        (Some(3_000), Some(1_000), Some(120))
    );
    assert_eq!(
        (stored.last_cause.as_deref(), stored.last_error.as_deref()),
        (Some("connection_closed"), Some("cause: connection_closed"))
    );
    assert_eq!(ServerRow::counter_state(store, id).await.unwrap().as_deref(), Some(&b"counters"[..]));
    let collections = CollectionRow::list(store, id, None, None, 2).await.unwrap();
    assert_eq!(times(&collections), [3_000, 2_000]);
    let collections = CollectionRow::list(store, id, None, Some(collections[1].id), 2).await.unwrap();
    assert_eq!(times(&collections), [1_000]);
    apply(store, |tx| tx.collections().purge(2_500, 1_500)).await;
    let collections = CollectionRow::list(store, id, None, None, 9).await.unwrap();
    assert_eq!(times(&collections), [3_000, 2_000]);
    apply(store, |tx| tx.servers().delete(id)).await;
    assert!(CollectionRow::list(store, id, None, None, 9).await.unwrap().is_empty());
}

fn times(collections: &[CollectionRow]) -> Vec<i64> {
    collections.iter().map(|collection| collection.finished_ms).collect()
}

async fn claim(store: &dyn Store, now_ms: i64, limit: i64) -> (Uuid, Vec<JobRow>) {
    let lease = Uuid::now_v7();
    let (times, capacity) =
        (Lease { now_ms, until_ms: now_ms + 90_000 }, WorkerCapacity { total: limit, failing: limit });
    apply(store, |tx| tx.collection_jobs().claim("one", lease, times, capacity)).await;
    let claimed = CollectionJobs::claimed_by(store, lease).await.unwrap();
    (lease, claimed.into_iter().map(|(job, _)| job).collect())
}

async fn states(store: &dyn Store, now_ms: i64) -> [i64; 5] {
    let counts = CollectionJobs::stats(store, now_ms, 0).await.unwrap();
    [counts.waiting, counts.delayed, counts.active, counts.completed, counts.failed]
}

async fn each_job_is_claimed_once(store: &Arc<dyn Store>) {
    let store = &**store;
    let servers: Vec<ServerRow> = (0..4).map(|number| server(&number.to_string(), number < 3)).collect();
    apply(store, |tx| servers.iter().for_each(|server| tx.servers().insert(server))).await;
    let ids: Vec<Uuid> = servers.iter().map(|server| server.id).collect();
    assert_eq!(CollectionJobs::unscheduled(store).await.unwrap().len(), 3);
    // The first schedule of a server counts; disabled servers are not scheduled.
    for (at, id) in ids.iter().enumerate() {
        let run_at_ms = 1_000 * (3 - i64::try_from(at).unwrap());
        apply(store, |tx| {
            tx.collection_jobs().schedule(*id, run_at_ms);
            tx.collection_jobs().schedule(*id, 99_000);
        })
        .await;
    }
    assert!(CollectionJobs::unscheduled(store).await.unwrap().is_empty());
    assert_eq!(ServerRow::get(store, ids[0]).await.unwrap().unwrap().next_run_ms, Some(3_000));
    assert_eq!(CollectionJobs::next_due_ms(store).await.unwrap(), Some(1_000));
    assert_eq!(states(store, 2_000).await, [2, 1, 0, 0, 0]);
    // The longest overdue job first, each job once.
    let (lease, first) = claim(store, 2_500, 1).await;
    assert_eq!((first.len(), first[0].server, first[0].attempts), (1, ids[2], 1));
    let (other, second) = claim(store, 2_500, 5).await;
    assert_eq!((second.len(), second[0].server), (1, ids[1]));
    assert_eq!(states(store, 2_500).await, [0, 1, 2, 0, 0]);
    // A manual run does not add a second job during an active job; a waiting job becomes due.
    apply(store, |tx| {
        tx.collection_jobs().run_now(ids[2], 2_600);
        tx.collection_jobs().run_now(ids[0], 2_600);
        tx.collection_jobs().run_now(ids[3], 2_600);
    })
    .await;
    assert_eq!(states(store, 2_600).await, [1, 0, 2, 0, 0]);
    assert_eq!(
        CollectionJobs::list(store, JobState::Waiting, 9).await.unwrap()[0].trigger,
        CollectTrigger::Manual
    );
    // A job is finished by the holder of its lease, and the next one scheduled in the same commit.
    assert_conflict(store, |tx| tx.collection_jobs().finish(first[0].id, other, 3_000, None)).await;
    apply(store, |tx| {
        tx.collection_jobs().finish(first[0].id, lease, 3_000, None);
        tx.collection_jobs().schedule(ids[2], 61_000);
    })
    .await;
    assert_conflict(store, |tx| tx.collection_jobs().finish(first[0].id, lease, 3_000, None)).await;
    // A retried job is delayed and not leased.
    apply(store, |tx| tx.collection_jobs().retry_at(second[0].id, other, 7_500, "connection_closed")).await;
    assert_eq!(states(store, 3_000).await, [1, 2, 0, 1, 0]);
    let (_, third) = claim(store, 3_000, 9).await;
    assert_eq!(third[0].server, ids[0]);
    leases_expire_and_queue_pauses(store, &ids).await;
}

async fn leases_expire_and_queue_pauses(store: &dyn Store, ids: &[Uuid]) {
    // After the lease expired, any hub may claim the job, and the former holder cannot finish it.
    assert_eq!(CollectionJobs::next_due_ms(store).await.unwrap(), Some(7_500));
    assert!(claim(store, 7_000, 9).await.1.is_empty());
    let (lease, claimed) = claim(store, 93_000, 9).await;
    assert_eq!(
        claimed.iter().map(|job| (job.server, job.attempts)).collect::<Vec<_>>(),
        [(ids[0], 2), (ids[1], 2), (ids[2], 1)]
    );
    apply(store, |tx| {
        tx.collection_jobs().finish(claimed[1].id, lease, 94_000, Some("no such host"));
        tx.collection_jobs().schedule(ids[1], 120_000);
    })
    .await;
    apply(store, |tx| {
        tx.collection_jobs().release_all("two");
        tx.collection_jobs().release_all("one");
    })
    .await;
    assert_eq!(states(store, 94_000).await, [2, 1, 0, 1, 1]);
    // Retrying a failed job deletes it and makes the scheduled one due.
    let failed = CollectionJobs::list(store, JobState::Failed, 9).await.unwrap();
    assert_eq!(failed[0].error.as_deref(), Some("no such host"));
    apply(store, |tx| {
        tx.collection_jobs().delete_failed(failed[0].id);
        tx.collection_jobs().run_now(ids[1], 95_000);
    })
    .await;
    assert_conflict(store, |tx| tx.collection_jobs().delete_failed(failed[0].id)).await;
    assert_eq!(states(store, 95_000).await, [3, 0, 0, 1, 0]);
    // No hub starts jobs of a paused queue.
    apply(store, |tx| tx.collection_jobs().set_paused(true)).await;
    assert!(
        CollectionJobs::is_paused(store).await.unwrap()
            && CollectionJobs::next_due_ms(store).await.unwrap().is_none()
    );
    assert!(claim(store, 99_000, 9).await.1.is_empty());
    apply(store, |tx| tx.collection_jobs().set_paused(false)).await;
    // A new interval moves the waiting job. A blocked server has no job.
    apply(store, |tx| {
        tx.collection_jobs().reschedule(ids[0], 200_000);
        tx.servers().block(ids[2], 1, "authentication_failed", None);
        tx.collection_jobs().cancel(ids[2]);
    })
    .await;
    apply(store, |tx| {
        tx.collection_jobs().reschedule(ids[2], 100_000);
        tx.collection_jobs().run_now(ids[2], 100_000);
    })
    .await;
    assert_eq!(states(store, 99_000).await, [1, 1, 0, 1, 0]);
    let counts = CollectionJobs::stats(store, 99_000, 3_000).await.unwrap();
    assert_eq!(
        (counts.finished_recently, counts.failed_recently, counts.duration_ms, counts.max_duration_ms),
        (1, 0, 500, 500)
    );
    assert_eq!(counts.max_delay_ms, 4_000);
    apply(store, |tx| tx.collection_jobs().purge(3_001, 0)).await;
    assert_eq!(states(store, 99_000).await, [1, 1, 0, 0, 0]);
    for id in ids {
        apply(store, |tx| tx.servers().delete(*id)).await;
    }
    assert_eq!(states(store, 99_000).await, [0; 5]);
}

async fn failing_servers_have_a_worker_quota(store: &Arc<dyn Store>) {
    let store = &**store;
    let servers: Vec<ServerRow> = (0..6).map(|number| server(&number.to_string(), true)).collect();
    apply(store, |tx| servers.iter().for_each(|server| tx.servers().insert(server))).await;
    let ids: Vec<Uuid> = servers.iter().map(|server| server.id).collect();
    let causes = [Some("timed_out"), Some("connection_closed"), None, Some("internal"), Some("timed_out")];
    for ((id, cause), run_at_ms) in ids.iter().zip(causes).zip(1_000..) {
        apply(store, |tx| {
            tx.collections().update_server(&collection(*id, 900, cause), 1, None);
            tx.collection_jobs().schedule(*id, run_at_ms);
        })
        .await;
    }
    // The last server was never collected, and a user waits for the server before it.
    apply(store, |tx| {
        tx.collection_jobs().schedule(ids[5], 1_005);
        tx.collection_jobs().run_now(ids[4], 999);
    })
    .await;
    let claim = async |total, failing| {
        let lease = Uuid::now_v7();
        let times = Lease { now_ms: 2_000, until_ms: 90_000 };
        apply(store, |tx| tx.collection_jobs().claim("one", lease, times, WorkerCapacity { total, failing }))
            .await;
        let claimed = CollectionJobs::claimed_by(store, lease).await.unwrap();
        let index = |id| ids.iter().position(|server| *server == id).unwrap();
        claimed.into_iter().map(|(job, failing)| (index(job.server), failing)).collect::<Vec<_>>()
    };
    // Jobs are claimed in the order of their times, failing servers up to their quota.
    assert_eq!(claim(3, 1).await, [(4, false), (0, true), (2, false)]);
    assert_eq!(claim(9, 0).await, [(3, false), (5, false)]);
    assert_eq!(claim(9, 1).await, [(1, true)]);
    for id in ids {
        apply(store, |tx| tx.servers().delete(id)).await;
    }
}

//! PostgreSQL only: several hubs, partitions, restarts and backups. Most tests run a second time behind a pooler in
//! transaction mode.

use crate::support::*;
use perfwatch_model::SystemClock;
use perfwatch_store::accounts::Account;
use perfwatch_store::*;
use perfwatch_testkit::Postgres;
use perfwatch_tsdb::{CompressionLevel, Table, Tier, block};
use std::sync::Arc;

/// Lists the cases that run at a server, and at a server behind a pooler.
macro_rules! at_both_servers {
    ($($case:ident,)+) => {
        mod direct {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&crate::support::postgres_server()).await;
            })+
        }

        mod behind_pooler {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&crate::support::pooled_server()).await;
            })+
        }
    };
}

at_both_servers! {
    hubs_share_data_but_not_head_and_leases,
    earlier_holders_of_a_lease_write_nothing,
    jobs_of_ended_hubs_return_to_the_queue,
    concurrent_startup_migrates_once,
    schema_versions_are_read_without_a_change,
    backup_restores_across_engines,
    empty_partitions_are_dropped,
    partitions_of_deleted_blocks_are_compacted,
}

async fn hubs_share_data_but_not_head_and_leases(server: &Postgres) {
    let url = server.database("two_hubs");
    let store: Arc<dyn Store> = Arc::new(connect(&url, "one").await.unwrap());
    crate::run_all_cases(&store).await;
    // A new connection of the same hub reads the same data.
    let store = connect(&url, "one").await.unwrap();
    assert_eq!(as_dyn(&store).list_hosts().await.unwrap().len(), 2);
    assert_eq!(store.read_blocks(Tier::Raw, host(3).id, T0, T0 + HOUR).await.unwrap().len(), 2);
    assert_eq!(head_seqs(&store).await, [99, 1]);
    // Another hub has its own head and cannot acquire a lease that is held.
    let other = connect(&url, "two").await.unwrap();
    assert_eq!(head_seqs(&other).await, Vec::<u64>::new());
    store.renew_leases().await.unwrap();
    other.renew_leases().await.unwrap();
    for task in LeasedTask::ALL {
        assert!(other.lease(task).is_none(), "the first hub holds {}", task.name());
    }
}

async fn earlier_holders_of_a_lease_write_nothing(server: &Postgres) {
    let url = server.database("leases");
    let [first, second] = [connect(&url, "one").await.unwrap(), connect(&url, "two").await.unwrap()];
    let task = LeasedTask::HistoryMaintenance;
    let write = |lease| {
        Transaction::build(|tx| {
            tx.require_lease(lease);
            tx.append(vec![Write::AdvanceWatermark(Tier::Raw, T0)].into());
        })
    };
    let watermark_ms = async || as_dyn(&first).retention_watermarks().await.unwrap().tier_ms(Tier::Raw);
    first.renew_leases().await.unwrap();
    let lease = first.lease(task).unwrap();
    // A hub that does not renew its leases, for example because it is suspended.
    let expire = || server.query("leases", "UPDATE lease SET until_ms = 0");
    expire();
    assert!(first.lease(task).is_some(), "it does not know yet");
    second.renew_leases().await.unwrap();
    let next = second.lease(task).unwrap();
    assert_ne!(next, lease);
    assert!(matches!(first.commit(write(lease)).await, Err(CommitError::Conflict)));
    assert!(matches!(first.commit(write(next)).await, Err(CommitError::Conflict)), "of another hub");
    assert_eq!(watermark_ms().await, 0);
    first.renew_leases().await.unwrap();
    assert!(first.lease(task).is_none());
    // The first hub acquires the leases again: writes that it began before are rejected, too.
    second.release_leases().await.unwrap();
    assert!(second.lease(task).is_none());
    first.renew_leases().await.unwrap();
    assert!(matches!(first.commit(write(lease)).await, Err(CommitError::Conflict)));
    first.commit(write(first.lease(task).unwrap())).await.unwrap();
    assert_eq!(watermark_ms().await, T0);
}

async fn jobs_of_ended_hubs_return_to_the_queue(server: &Postgres) {
    let url = server.database("ended_hubs");
    let [first, second] = [connect(&url, "one").await.unwrap(), connect(&url, "two").await.unwrap()];
    let claim = "INSERT INTO collection_job (server, trigger, state, run_at_ms, attempts, hub, lease_id, leased_until_ms) \
         SELECT hub::bytea, 'scheduled', 'active', 0, 1, hub, 'lease', 9e15 \
         FROM unnest(ARRAY['one', 'two', 'earlier version']) AS hub";
    server.query("ended_hubs", claim);
    let waiting = || server.query("ended_hubs", "SELECT hub FROM collection_job WHERE state = 'waiting'");
    first.renew_leases().await.unwrap();
    second.renew_leases().await.unwrap();
    assert_eq!(waiting(), "");
    server.query("ended_hubs", "UPDATE lease SET until_ms = until_ms - 8000 WHERE name = 'hub one'");
    second.renew_leases().await.unwrap();
    assert_eq!(waiting(), "one");
    let hubs = || server.query("ended_hubs", "SELECT name FROM lease WHERE name LIKE 'hub %' ORDER BY name");
    assert_eq!(hubs(), "hub one\nhub two");
    server.query("ended_hubs", "UPDATE lease SET until_ms = until_ms - 86400000 WHERE name = 'hub one'");
    second.renew_leases().await.unwrap();
    assert_eq!(hubs(), "hub two");
}

async fn concurrent_startup_migrates_once(server: &Postgres) {
    let url = server.database("concurrent_startup");
    let starts = (0..4).map(|n| {
        let url = url.clone();
        tokio::spawn(async move { connect(&url, &format!("hub-{n}")).await.map(|_| ()) })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
}

async fn schema_versions_are_read_without_a_change(server: &Postgres) {
    let url = server.database("schema_versions");
    let read = || PostgresStore::schema_versions(&url, Arc::new(SystemClock::new()));
    assert_eq!(read().await.unwrap().current, None);
    assert_eq!(read().await.unwrap().current, None, "nothing is created");
    drop(connect(&url, "one").await.unwrap());
    let versions = read().await.unwrap();
    assert_eq!(versions.current, Some(versions.supported));
    let other = url.replace("schema_versions", "missing_database");
    let missing = PostgresStore::schema_versions(&other, Arc::new(SystemClock::new())).await;
    assert!(missing.unwrap_err().to_string().contains("does not exist"));
}

async fn backup_restores_across_engines(server: &Postgres) {
    let store: Arc<dyn Store> = Arc::new(connect(&server.database("source"), "one").await.unwrap());
    crate::run_all_cases(&store).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("history.db");
    store.backup(&file).await.unwrap();
    let postgres = connect(&server.database("target"), "two").await.unwrap();
    postgres.restore(&file).await.unwrap();
    assert!(postgres.restore(&file).await.unwrap_err().to_string().contains("is not empty"));
    let options = SqliteOptions { folder: folder.path().to_owned(), budget_bytes: 1 << 30 };
    let sqlite = SqliteStore::open(&options, Arc::new(SystemClock::new())).unwrap();
    let stores: [&dyn Store; 2] = [&postgres, &sqlite];
    for copy in stores {
        assert_eq!(copy.list_hosts().await.unwrap(), store.list_hosts().await.unwrap());
        assert_eq!(head_seqs(copy).await, head_seqs(&*store).await);
        assert_eq!(copy.retention_watermarks().await.unwrap(), store.retention_watermarks().await.unwrap());
        let accounts = Account::list(copy).await.unwrap();
        assert_eq!(accounts, Account::list(&*store).await.unwrap());
        for tier in Tier::ALL {
            let content = |slices: Vec<BlockSlice>| -> Vec<String> {
                slices.into_iter().map(|slice| format!("{:?}", slice.content.unwrap())).collect()
            };
            for number in [3, 5] {
                let expected = store.read_blocks(tier, host(number).id, T0, T0 + HOUR).await.unwrap();
                let restored = copy.read_blocks(tier, host(number).id, T0, T0 + HOUR).await.unwrap();
                assert_eq!(content(restored), content(expected), "{} {tier:?} {number}", copy.backend());
            }
        }
        let last = copy.append(vec![row(host(1).id, &shape(&["a"]), 100, T0)]).await.unwrap();
        assert!(last > 1, "arrival numbers continue");
    }
}

#[tokio::test]
async fn database_restart_is_survived() {
    let mut server = Postgres::start_durable();
    let store = connect(&server.database("restarted"), "one").await.unwrap();
    let shape = shape(&["x"]);
    store.append(vec![row(host(1).id, &shape, 1, T0)]).await.unwrap();
    server.kill();
    let error = store.append(vec![row(host(1).id, &shape, 2, T0)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(matches!(store.disk_usage(None).await, Err(StoreError::Unavailable(_))));
    server.resume();
    let mut attempts = 0;
    while store.append(vec![row(host(1).id, &shape, 3, T0)]).await.is_err() {
        attempts += 1;
        assert!(attempts < 20, "the store does not recover");
    }
    assert_eq!(head_seqs(&store).await, [1, 3]);
}

async fn empty_partitions_are_dropped(server: &Postgres) {
    let store = connect(&server.database("partitions"), "one").await.unwrap();
    let (id, shape) = (host(1).id, shape(&["x"]));
    const DAY: i64 = 24 * HOUR;
    let first = T0 / DAY * DAY;
    for day in 0..3 {
        let (_, block) = raw_block(id, &shape, 0..60, first + day * DAY);
        store.commit(vec![Write::PutBlock(Tier::Raw, id, shape.clone(), block)].into()).await.unwrap();
    }
    let before = store.disk_usage(None).await.unwrap();
    store.commit(vec![Write::AdvanceWatermark(Tier::Raw, first + 2 * DAY)].into()).await.unwrap();
    for block in as_dyn(&store).oldest_blocks(Tier::Raw, first + 2 * DAY, 10).await.unwrap() {
        store.commit(vec![Write::DropBlock(block)].into()).await.unwrap();
    }
    store.vacuum(0).await.unwrap();
    let after = store.disk_usage(None).await.unwrap();
    assert!(
        after.disk_bytes < before.disk_bytes && after.tier_bytes[0] < before.tier_bytes[0],
        "{before:?} {after:?}"
    );
    // A dropped partition is created again for late rows.
    let (_, block) = raw_block(id, &shape, 0..60, first);
    store.commit(vec![Write::PutBlock(Tier::Raw, id, shape.clone(), block)].into()).await.unwrap();
    assert_eq!(store.read_blocks(Tier::Raw, id, first, first + HOUR).await.unwrap().len(), 1);
}

async fn partitions_of_deleted_blocks_are_compacted(server: &Postgres) {
    let store = connect(&server.database("compaction"), "one").await.unwrap();
    let names: Vec<&'static str> = (0..400).map(|n| &*format!("metric.{n}").leak()).collect();
    let (shape, from_ms) = (shape(&names), T0 / DAY * DAY);
    // Values that cannot be compressed: 12 blocks of the same day, more than the minimum size of a compaction.
    let put = async |number: u8| {
        let mut generator = fastrand::Rng::with_seed(number.into());
        let rows: Vec<_> = (0..200)
            .map(|seq| {
                let mut snapshot =
                    (*row(host(number).id, &shape, seq, from_ms + seq.cast_signed()).snapshot).clone();
                snapshot.values.fill_with(|| generator.i64(0..1 << 50));
                Arc::new(snapshot)
            })
            .collect();
        let block = block::encode(&Table::from_snapshots(&rows).remove(0), CompressionLevel::Fast);
        store.commit(vec![Write::PutBlock(Tier::Raw, host(number).id, shape.clone(), block)].into()).await
    };
    for number in 0..12 {
        put(number).await.unwrap();
    }
    for block in as_dyn(&store).oldest_blocks(Tier::Raw, T0 + DAY, 11).await.unwrap() {
        let delete = Write::AdvanceHostWatermark(Tier::Raw, block.host, from_ms + DAY);
        store.commit(vec![delete, Write::DropBlock(block)].into()).await.unwrap();
    }
    let before = store.disk_usage(None).await.unwrap().disk_bytes;
    store.vacuum(0).await.unwrap();
    let after = store.disk_usage(None).await.unwrap();
    assert!(after.disk_bytes < before / 2 && after.tier_bytes[0] > 0, "{before} {after:?}");
}

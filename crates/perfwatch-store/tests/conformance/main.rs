//! What every store must do, one suite for all: durable at once or not at all, in order, as of
//! one moment, and nothing lost when calls collide.

#![expect(clippy::unwrap_used, reason = "a test fails where it can't go on")]

mod accounts;
mod incidents;
mod servers;
mod sqlite;
mod tls;

use perfwatch_model::*;
use perfwatch_store::*;
use perfwatch_tsdb::{Block, Buckets, CompressionLevel, Projection, SeriesSelector, Table, Tier, block};
use std::sync::Arc;

const HOUR: i64 = 3_600_000;
const T0: i64 = 490_000 * HOUR;

fn shape(names: &[&'static str]) -> Arc<Shape> {
    let column = |name: &&'static str| Column {
        metric: (*name).into(),
        dimension: "".into(),
        instance: "".into(),
        decimals: 1,
    };
    Arc::new(Shape::new(names.iter().map(column).collect()))
}

fn row(host: HostId, shape: &Arc<Shape>, seq: u64, at_ms: i64) -> SnapshotRow {
    let values = (0..shape.columns().len()).map(|at| seq.cast_signed() * 10 + at as i64).collect();
    let process = ProcessRow { pid: 7, name: "init".into(), state: 'S', ..ProcessRow::default() };
    let snapshot = Snapshot {
        boot: BootId::from_bytes(&[3; 16]).unwrap(),
        seq,
        at_ms,
        interval_ms: 2_000,
        shape: shape.clone(),
        values,
        processes: vec![process],
        facts: None,
        errors: vec![],
    };
    SnapshotRow { host, snapshot: Arc::new(snapshot) }
}

fn host(number: u8) -> HostRecord {
    HostRecord {
        id: HostId::from_bytes(&[number; 16]).unwrap(),
        name: format!("host-{number}"),
        facts: Some(Arc::new(HostFacts { cores: 4, ..HostFacts::default() })),
        first_seen_ms: T0,
        last_at_ms: None,
        interval_ms: 0,
    }
}

fn ticks(host: HostId, shape: &Arc<Shape>, seqs: std::ops::Range<u64>, from_ms: i64) -> (Table, Block) {
    let rows: Vec<_> =
        seqs.map(|seq| row(host, shape, seq, from_ms + seq.cast_signed() * 2_000).snapshot).collect();
    let table = Table::from_snapshots(&rows).remove(0);
    let block = block::encode(&table, CompressionLevel::Fast);
    (table, block)
}

fn query(host: HostId, tier: Tier, from_ms: i64, to_ms: i64) -> Query {
    Query { host, tier, from_ms, to_ms, projection: Arc::new(Projection::full()) }
}

async fn head_seqs(store: &dyn Store) -> Vec<u64> {
    let mut seqs = Vec::new();
    let mut after = 0;
    loop {
        let rows = store.read_head(after, 3).await.unwrap();
        let Some(last) = rows.last() else {
            return seqs;
        };
        after = last.arrival;
        seqs.extend(rows.iter().map(|row| row.row.snapshot.seq));
    }
}

async fn hosts_are_persisted(store: &dyn Store) {
    let mut one = host(1);
    store.upsert_host(one.clone()).await.unwrap();
    store.upsert_host(host(2)).await.unwrap();
    one.name = "renamed".into();
    one.facts = None;
    store.upsert_host(one).await.unwrap();
    store
        .commit(vec![Write::HostSeen(host(1).id, T0 + 5, 500), Write::HostSeen(host(1).id, T0, 500)])
        .await
        .unwrap();
    let hosts = store.list_hosts().await.unwrap();
    assert_eq!(hosts.len(), 2);
    assert_eq!(hosts[0].name, "renamed");
    assert_eq!(hosts[0].facts, host(1).facts, "facts stay when there are no newer ones");
    assert_eq!((hosts[0].last_at_ms, hosts[0].interval_ms), (Some(T0 + 5), 500));
}

async fn head_is_an_ordered_log(store: Arc<dyn Store>) {
    let (a, b) = (shape(&["a"]), shape(&["a", "b"]));
    let mut calls = Vec::new();
    for seq in 0..40 {
        let store = store.clone();
        let rows = vec![row(host(1).id, if seq % 2 == 0 { &a } else { &b }, seq, T0 + seq as i64)];
        calls.push(tokio::spawn(async move { store.append(rows).await.unwrap() }));
    }
    let mut arrivals = Vec::new();
    for call in calls {
        arrivals.push(call.await.unwrap());
    }
    let mut seqs = head_seqs(&*store).await;
    seqs.sort_unstable();
    assert_eq!(seqs, (0..40).collect::<Vec<_>>());
    // Calls that came together shared commits.
    let commits: std::collections::HashSet<i64> = arrivals.iter().copied().collect();
    assert!(commits.len() < 40, "{} commits", commits.len());
    let back = store.read_head(0, 1_000).await.unwrap();
    let first = back.iter().find(|row| row.row.snapshot.seq == 1).unwrap();
    assert_eq!(first.row.snapshot, row(host(1).id, &b, 1, T0 + 1).snapshot);
    let middle = back[20].arrival;
    store.truncate_head(middle).await.unwrap();
    let left = store.read_head(0, 1_000).await.unwrap();
    assert!(left.iter().all(|row| row.arrival >= middle) && !left.is_empty());
    store.truncate_head(i64::MAX).await.unwrap();
    assert_eq!(head_seqs(&*store).await, Vec::<u64>::new());
    // Numbers go on, also when all rows are gone.
    assert!(store.append(vec![row(host(1).id, &a, 99, T0)]).await.unwrap() > *arrivals.iter().max().unwrap());
}

async fn block_parts_are_read_selectively(store: &dyn Store) {
    let (id, shape) = (host(3).id, shape(&["cpu.usage", "memory.used", "memory.free"]));
    let (table, one) = ticks(id, &shape, 0..150, T0);
    let (_, two) = ticks(id, &shape, 150..300, T0);
    let put = |block| Write::PutBlock(Tier::Raw, id, shape.clone(), block);
    store.commit(vec![put(one), put(two), Write::MarkDirty(Tier::Raw, id, T0)]).await.unwrap();
    let reading = store.read_range(query(id, Tier::Raw, T0 + 10_000, T0 + 20_000)).await.unwrap();
    assert_eq!(reading.slices.len(), 1, "the second block begins later");
    let Ok(BlockContent::Raw(whole)) = &reading.slices[0].content else { panic!("{reading:?}") };
    assert_eq!(whole, &table);
    let memory = Projection::of_series(vec![SeriesSelector { metric: "memory.*".into(), instance: None }]);
    let part = Query { projection: Arc::new(memory), ..query(id, Tier::Raw, T0, T0 + HOUR) };
    let reading = store.read_range(part.clone()).await.unwrap();
    assert_eq!(reading.slices.len(), 2);
    let Ok(BlockContent::Raw(part_of)) = &reading.slices[0].content else { panic!("{reading:?}") };
    assert_eq!(part_of.shape.columns().len(), 2);
    assert_eq!(part_of.columns[0], table.columns[1]);
    assert!(part_of.processes.is_empty() && part_of.boots.is_empty());
    // The hour is not rolled up: minutes are asked of it, ticks answer.
    let minutes = store.read_range(Query { tier: Tier::Minute, ..part }).await.unwrap();
    assert!(matches!(minutes.slices[0].content, Ok(BlockContent::Raw(_))));
    assert_eq!(store.read_range(query(host(4).id, Tier::Raw, 0, i64::MAX)).await.unwrap().slices.len(), 0);
    assert_eq!(store.oldest_blocks(Tier::Raw, T0 + 299_000, 9).await.unwrap().len(), 1);
    let usage = store.disk_usage().await.unwrap();
    assert!(usage.tier_bytes[0] > 0 && usage.disk_bytes > 0, "{usage:?}");
}

async fn commit_is_atomic(store: &dyn Store) {
    let (id, shape) = (host(5).id, shape(&["x"]));
    let (table, block) = ticks(id, &shape, 0..60, T0);
    store
        .commit(vec![
            Write::PutBlock(Tier::Raw, id, shape.clone(), block),
            Write::MarkDirty(Tier::Raw, id, T0),
        ])
        .await
        .unwrap();
    let raw = store.read_blocks(Tier::Raw, id, T0, T0 + HOUR).await.unwrap().remove(0).block;
    let window = async || {
        let all = store.dirty_windows(Tier::Raw, T0 + 1, 10).await.unwrap();
        all.into_iter().find(|dirty| dirty.host == id)
    };
    let minutes = Buckets::from_table(&table, 60_000, 0);
    let rolled = block::encode_buckets(&minutes, CompressionLevel::Best);
    let roll = |window| {
        vec![
            Write::DropBlock(raw.clone()),
            Write::PutBlock(Tier::Minute, id, shape.clone(), rolled.clone()),
            Write::ClearDirty(window),
        ]
    };
    // Somebody marks it again meanwhile: what was rolled up is not all of it.
    let old = window().await.unwrap();
    store.commit(vec![Write::MarkDirty(Tier::Raw, id, T0)]).await.unwrap();
    assert_eq!(store.commit(roll(old)).await, Err(CommitError::Conflict));
    let new = window().await.unwrap();
    store.commit(roll(new)).await.unwrap();
    assert_eq!(window().await, None);
    // The block went already: nothing of the list is done.
    assert_eq!(store.commit(roll(new)).await, Err(CommitError::Conflict));
    let there = store.read_blocks(Tier::Minute, id, T0, T0 + HOUR).await.unwrap();
    assert_eq!(there.len(), 1);
    let Ok(BlockContent::Buckets(back)) = &there[0].content else { panic!() };
    assert_eq!(back, &minutes);
    assert!(store.read_blocks(Tier::Raw, id, T0, T0 + HOUR).await.unwrap().is_empty());
}

async fn rows_are_sealed_once(store: &dyn Store) {
    let sealed = |arrival| vec![Write::AdvanceSeal(SealWatermark { host: host(8).id, arrival })];
    store.commit(sealed(1)).await.unwrap();
    store.commit(sealed(4)).await.unwrap();
    assert_eq!(store.commit(sealed(4)).await, Err(CommitError::Conflict), "its answer was lost");
    let there = store.seal_watermarks().await.unwrap();
    assert_eq!(there.iter().find(|one| one.host == host(8).id).map(|one| one.arrival), Some(4));
}

async fn watermarks_advance_only_past_rollups(store: &dyn Store) {
    let id = host(6).id;
    store.commit(vec![Write::MarkDirty(Tier::Minute, id, T0)]).await.unwrap();
    assert_eq!(
        store.commit(vec![Write::AdvanceWatermark(Tier::Minute, T0 + 1)]).await,
        Err(CommitError::Conflict)
    );
    assert_eq!(store.commit(vec![Write::AdvanceWatermark(Tier::Minute, T0)]).await, Ok(()));
    let floors = store.retention_watermarks().await.unwrap();
    assert_eq!(floors.ms, [0, T0, 0]);
    assert_eq!(
        store.commit(vec![Write::ExpectWatermarks(RetentionWatermarks::default())]).await,
        Err(CommitError::Conflict)
    );
    assert_eq!(
        store.commit(vec![Write::ExpectWatermarks(floors), Write::AdvanceWatermark(Tier::Minute, 5)]).await,
        Ok(())
    );
    assert_eq!(store.retention_watermarks().await.unwrap().ms[1], T0, "a floor never sinks");
}

async fn sequence_ranges_merge(store: &dyn Store) {
    let (id, boot) = (host(7).id, BootId::from_bytes(&[9; 16]).unwrap());
    for (arrival, seqs) in [(9, "1-5"), (10, "9-9"), (11, "6-8")] {
        let seen = SequenceRanges { host: id, boot, seqs: RangeSet::from_text(seqs), newest_ms: T0 };
        let sealed = SealWatermark { host: id, arrival };
        store.commit(vec![Write::RecordSequences(seen), Write::AdvanceSeal(sealed)]).await.unwrap();
    }
    let seen = store.sequence_ranges().await.unwrap();
    let of_host: Vec<String> = seen.iter().filter(|s| s.host == id).map(|s| s.seqs.to_text()).collect();
    assert_eq!(of_host, ["1-9"]);
    assert!(store.seal_watermarks().await.unwrap().contains(&SealWatermark { host: id, arrival: 11 }));
    store.vacuum(T0 + 1).await.unwrap();
    assert!(store.sequence_ranges().await.unwrap().is_empty());
    assert!(store.acquire_lease("work", 60_000).await.unwrap());
    assert!(store.acquire_lease("work", 60_000).await.unwrap(), "its holder keeps it");
}

async fn one(store: Arc<dyn Store>) {
    hosts_are_persisted(&*store).await;
    head_is_an_ordered_log(store.clone()).await;
    block_parts_are_read_selectively(&*store).await;
    commit_is_atomic(&*store).await;
    rows_are_sealed_once(&*store).await;
    watermarks_advance_only_past_rollups(&*store).await;
    sequence_ranges_merge(&*store).await;
    accounts::account_names_are_unique(&*store).await;
    accounts::enrollment_uses_are_limited(&*store).await;
    accounts::revisions_detect_changes(&*store).await;
    incidents::incidents_and_notifications(&*store).await;
    servers::server_updates_check_version(&*store).await;
    servers::each_job_is_claimed_once(&*store).await;
    servers::failing_servers_have_a_worker_quota(&*store).await;
}

mod postgres {
    use super::*;
    use perfwatch_testkit::Postgres;

    async fn connect(url: &str, hub: &str) -> Result<PostgresStore, StoreError> {
        PostgresStore::connect(url, hub.to_owned(), 1 << 30, Arc::new(SystemClock::new())).await
    }

    #[tokio::test]
    async fn does_what_every_store_must() {
        let server = Postgres::start();
        let url = server.database("conformance");
        one(Arc::new(connect(&url, "one").await.unwrap())).await;
        // Again, by another process so to speak: all is there.
        let store = connect(&url, "one").await.unwrap();
        assert_eq!(store.list_hosts().await.unwrap().len(), 2);
        assert_eq!(store.read_blocks(Tier::Raw, host(3).id, T0, T0 + HOUR).await.unwrap().len(), 2);
        assert_eq!(head_seqs(&store).await, [99]);
        // Another hub has a head of its own, and takes no lease that is held.
        let other = connect(&url, "two").await.unwrap();
        assert_eq!(head_seqs(&other).await, Vec::<u64>::new());
        assert!(other.acquire_lease("other work", 60_000).await.unwrap());
        assert!(!other.acquire_lease("work", 60_000).await.unwrap(), "the first hub holds it");
    }

    #[tokio::test]
    async fn concurrent_startup_migrates_once() {
        let server = Postgres::start();
        let url = server.database("together");
        let starts = (0..4).map(|n| {
            let url = url.clone();
            tokio::spawn(async move { connect(&url, &format!("hub-{n}")).await.map(|_| ()) })
        });
        for start in starts.collect::<Vec<_>>() {
            start.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn backup_restores_across_engines() {
        let server = Postgres::start();
        let store = Arc::new(connect(&server.database("first"), "one").await.unwrap());
        one(store.clone()).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("history.db");
        store.backup(&file).await.unwrap();
        let again = connect(&server.database("second"), "two").await.unwrap();
        again.restore(&file).await.unwrap();
        assert!(again.restore(&file).await.unwrap_err().to_string().contains("has history already"));
        let options = SqliteOptions { folder: folder.path().to_owned(), budget_bytes: 1 << 30 };
        let sqlite = SqliteStore::open(&options, Arc::new(SystemClock::new())).unwrap();
        let stores: [&dyn Store; 2] = [&again, &sqlite];
        for copy in stores {
            assert_eq!(copy.list_hosts().await.unwrap(), store.list_hosts().await.unwrap());
            assert_eq!(head_seqs(copy).await, head_seqs(&*store).await);
            assert_eq!(
                copy.retention_watermarks().await.unwrap(),
                store.retention_watermarks().await.unwrap()
            );
            let accounts = perfwatch_store::accounts::Account::list(copy).await.unwrap();
            assert_eq!(accounts, perfwatch_store::accounts::Account::list(&*store).await.unwrap());
            for tier in Tier::ALL {
                let read = |of: Vec<BlockSlice>| -> Vec<String> {
                    of.into_iter().map(|piece| format!("{:?}", piece.content.unwrap())).collect()
                };
                for number in [3, 5] {
                    let there = store.read_blocks(tier, host(number).id, T0, T0 + HOUR).await.unwrap();
                    let here = copy.read_blocks(tier, host(number).id, T0, T0 + HOUR).await.unwrap();
                    assert_eq!(read(here), read(there), "{} {tier:?} {number}", copy.backend());
                }
            }
            let last = copy.append(vec![row(host(1).id, &shape(&["a"]), 100, T0)]).await.unwrap();
            assert!(last > 1, "numbers go on");
        }
    }

    #[tokio::test]
    async fn database_restart_is_survived() {
        let mut server = Postgres::start_durable();
        let store = connect(&server.database("dies"), "one").await.unwrap();
        let shape = shape(&["x"]);
        store.append(vec![row(host(1).id, &shape, 1, T0)]).await.unwrap();
        server.kill();
        let error = store.append(vec![row(host(1).id, &shape, 2, T0)]).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(matches!(store.disk_usage().await, Err(StoreError::Unavailable(_))));
        server.resume();
        let mut tries = 0;
        while store.append(vec![row(host(1).id, &shape, 3, T0)]).await.is_err() {
            tries += 1;
            assert!(tries < 20, "it never comes back");
        }
        assert_eq!(head_seqs(&store).await, [1, 3]);
    }

    #[tokio::test]
    async fn empty_partitions_are_dropped() {
        let server = Postgres::start();
        let store = connect(&server.database("days"), "one").await.unwrap();
        let (id, shape) = (host(1).id, shape(&["x"]));
        const DAY: i64 = 24 * HOUR;
        let first = T0 / DAY * DAY;
        for day in 0..3 {
            let (_, block) = ticks(id, &shape, 0..60, first + day * DAY);
            store.commit(vec![Write::PutBlock(Tier::Raw, id, shape.clone(), block)]).await.unwrap();
        }
        let before = store.disk_usage().await.unwrap();
        store.commit(vec![Write::AdvanceWatermark(Tier::Raw, first + 2 * DAY)]).await.unwrap();
        for block in store.oldest_blocks(Tier::Raw, first + 2 * DAY, 10).await.unwrap() {
            store.commit(vec![Write::DropBlock(block)]).await.unwrap();
        }
        store.vacuum(0).await.unwrap();
        let after = store.disk_usage().await.unwrap();
        assert!(
            after.disk_bytes < before.disk_bytes && after.tier_bytes[0] < before.tier_bytes[0],
            "{before:?} {after:?}"
        );
        // A day that was dropped is made again for what comes late.
        let (_, block) = ticks(id, &shape, 0..60, first);
        store.commit(vec![Write::PutBlock(Tier::Raw, id, shape.clone(), block)]).await.unwrap();
        assert_eq!(store.read_blocks(Tier::Raw, id, first, first + HOUR).await.unwrap().len(), 1);
    }
}

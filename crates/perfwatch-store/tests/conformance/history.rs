//! Hosts, head, blocks, watermarks and leases.

use crate::support::*;
use perfwatch_model::{BootId, HostId, RangeSet};
use perfwatch_store::*;
use perfwatch_tsdb::{Buckets, CompressionLevel, Projection, SeriesSelector, Tier, block};
use std::sync::Arc;

conformance! {
    hosts_are_persisted,
    head_is_an_ordered_log,
    block_parts_are_read_selectively,
    commit_is_atomic,
    rows_are_sealed_once,
    watermarks_advance_only_past_rollups,
    sequence_ranges_merge,
    lease_is_renewed_by_its_holder,
    unused_shapes_are_deleted_at_once,
    watermark_of_a_host_affects_only_its_reads,
    usage_counts_blocks_and_shapes_by_host,
    volume_counts_blocks_of_a_period,
    budget_is_replaced,
}

async fn hosts_are_persisted(store: &Arc<dyn Store>) {
    let mut renamed = host(1);
    store.upsert_host(renamed.clone()).await.unwrap();
    store.upsert_host(host(2)).await.unwrap();
    renamed.name = "renamed".into();
    renamed.facts = None;
    renamed.created_by = None;
    store.upsert_host(renamed).await.unwrap();
    store
        .commit(vec![Write::HostSeen(host(1).id, T0 + 5, 500), Write::HostSeen(host(1).id, T0, 500)].into())
        .await
        .unwrap();
    let hosts = store.list_hosts().await.unwrap();
    assert_eq!(hosts.len(), 2);
    assert_eq!(hosts[0].name, "renamed");
    assert_eq!(hosts[0].facts, host(1).facts, "facts are kept if the update has none");
    assert_eq!((hosts[0].created_by.as_deref(), hosts[1].created_by.as_deref()), (Some("token 1"), None));
    let new_hosts = shares::list_new_hosts(&**store, T0 + DAY).await.unwrap();
    assert_eq!(new_hosts, [(host(1).id, "token 1".into())].into());
    assert!(shares::list_new_hosts(&**store, T0 + 7 * DAY).await.unwrap().is_empty());
    assert_eq!((hosts[0].last_snapshot_ms, hosts[0].interval_ms), (Some(T0 + 5), 500));
}

async fn head_is_an_ordered_log(store: &Arc<dyn Store>) {
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
    let mut seqs = head_seqs(&**store).await;
    seqs.sort_unstable();
    assert_eq!(seqs, (0..40).collect::<Vec<_>>());
    // Concurrent calls share commits.
    let commits: std::collections::HashSet<i64> = arrivals.iter().copied().collect();
    assert!(commits.len() < 40, "{} commits", commits.len());
    let rows = store.read_head(0, 1_000).await.unwrap();
    let first = rows.iter().find(|row| row.row.snapshot.seq == 1).unwrap();
    assert_eq!(first.row.snapshot, row(host(1).id, &b, 1, T0 + 1).snapshot);
    let middle = rows[20].arrival;
    store.truncate_head(middle).await.unwrap();
    let remaining = store.read_head(0, 1_000).await.unwrap();
    assert!(remaining.iter().all(|row| row.arrival >= middle) && !remaining.is_empty());
    store.truncate_head(i64::MAX).await.unwrap();
    assert_eq!(head_seqs(&**store).await, Vec::<u64>::new());
    // Arrival numbers continue after all rows were deleted.
    let next = store.append(vec![row(host(1).id, &a, 99, T0)]).await.unwrap();
    assert!(next > *arrivals.iter().max().unwrap());
}

async fn block_parts_are_read_selectively(store: &Arc<dyn Store>) {
    let (id, shape) = (host(3).id, shape(&["cpu.usage", "memory.used", "memory.free"]));
    let (table, first) = raw_block(id, &shape, 0..150, T0);
    let (_, second) = raw_block(id, &shape, 150..300, T0);
    let put = |block| Write::PutBlock(Tier::Raw, id, shape.clone(), block);
    store.commit(vec![put(first), put(second), Write::MarkDirty(Tier::Raw, id, T0)].into()).await.unwrap();
    let result = store.read_range(query(id, Tier::Raw, T0 + 10_000, T0 + 20_000)).await.unwrap();
    assert_eq!(result.slices.len(), 1, "the second block begins after the range");
    let Ok(BlockContent::Raw(full)) = &result.slices[0].content else { panic!("{result:?}") };
    assert_eq!(full, &table);
    let memory = Projection::of_series(vec![SeriesSelector { metric: "memory.*".into(), instance: None }]);
    let memory_query = Query { projection: Arc::new(memory), ..query(id, Tier::Raw, T0, T0 + HOUR) };
    let result = store.read_range(memory_query.clone()).await.unwrap();
    assert_eq!(result.slices.len(), 2);
    let Ok(BlockContent::Raw(projected)) = &result.slices[0].content else { panic!("{result:?}") };
    assert_eq!(projected.shape.columns().len(), 2);
    assert_eq!(projected.columns[0], table.columns[1]);
    assert!(projected.processes.is_empty() && projected.boots.is_empty());
    // The hour is not rolled up, so a query for minutes reads the raw tier.
    let minutes = store.read_range(Query { tier: Tier::Minute, ..memory_query }).await.unwrap();
    assert!(matches!(minutes.slices[0].content, Ok(BlockContent::Raw(_))));
    assert_eq!(store.read_range(query(host(4).id, Tier::Raw, 0, i64::MAX)).await.unwrap().slices.len(), 0);
    assert_eq!(store.oldest_blocks(Tier::Raw, T0 + 299_000, 9).await.unwrap().len(), 1);
    let usage = store.disk_usage(None).await.unwrap();
    assert!(usage.tier_bytes[0] > 0 && usage.disk_bytes > 0, "{usage:?}");
    let known = store.disk_usage(Some([1, 2, 3])).await.unwrap();
    assert_eq!((known.tier_bytes, known.target_bytes), ([1, 2, 3], usage.target_bytes));
}

async fn commit_is_atomic(store: &Arc<dyn Store>) {
    let (id, shape) = (host(5).id, shape(&["x"]));
    let (table, block) = raw_block(id, &shape, 0..60, T0);
    store
        .commit(
            vec![Write::PutBlock(Tier::Raw, id, shape.clone(), block), Write::MarkDirty(Tier::Raw, id, T0)]
                .into(),
        )
        .await
        .unwrap();
    let raw = store.read_blocks(Tier::Raw, id, T0, T0 + HOUR).await.unwrap().remove(0).block;
    let window = async || {
        let all = store.dirty_windows(Tier::Raw, T0 + 1, 10).await.unwrap();
        all.into_iter().find(|dirty| dirty.host == id)
    };
    let minutes = Buckets::from_table(&table, 60_000, 0);
    let minute_block = block::encode_buckets(&minutes, CompressionLevel::Best);
    let roll_up = |window| {
        vec![
            Write::DropBlock(raw.clone()),
            Write::PutBlock(Tier::Minute, id, shape.clone(), minute_block.clone()),
            Write::ClearDirty(window),
        ]
    };
    // The window receives rows after the roll-up read it.
    let outdated = window().await.unwrap();
    store.commit(vec![Write::MarkDirty(Tier::Raw, id, T0)].into()).await.unwrap();
    assert_eq!(store.commit(roll_up(outdated).into()).await, Err(CommitError::Conflict));
    let current = window().await.unwrap();
    store.commit(roll_up(current).into()).await.unwrap();
    assert_eq!(window().await, None);
    // The raw block was deleted already, so no write of the list is applied.
    assert_eq!(store.commit(roll_up(current).into()).await, Err(CommitError::Conflict));
    let slices = store.read_blocks(Tier::Minute, id, T0, T0 + HOUR).await.unwrap();
    assert_eq!(slices.len(), 1);
    let Ok(BlockContent::Buckets(buckets)) = &slices[0].content else { panic!() };
    assert_eq!(buckets, &minutes);
    assert!(store.read_blocks(Tier::Raw, id, T0, T0 + HOUR).await.unwrap().is_empty());
}

async fn rows_are_sealed_once(store: &Arc<dyn Store>) {
    let advance = |arrival| vec![Write::AdvanceSeal(SealWatermark { host: host(8).id, arrival })];
    store.commit(advance(1).into()).await.unwrap();
    store.commit(advance(4).into()).await.unwrap();
    assert_eq!(
        store.commit(advance(4).into()).await,
        Err(CommitError::Conflict),
        "the response to the first commit was lost"
    );
    let watermarks = store.seal_watermarks().await.unwrap();
    let watermark = watermarks.iter().find(|watermark| watermark.host == host(8).id);
    assert_eq!(watermark.map(|watermark| watermark.arrival), Some(4));
}

async fn watermarks_advance_only_past_rollups(store: &Arc<dyn Store>) {
    let id = host(6).id;
    store.commit(vec![Write::MarkDirty(Tier::Minute, id, T0)].into()).await.unwrap();
    assert_eq!(
        store.commit(vec![Write::AdvanceWatermark(Tier::Minute, T0 + 1)].into()).await,
        Err(CommitError::Conflict)
    );
    assert_eq!(store.commit(vec![Write::AdvanceWatermark(Tier::Minute, T0)].into()).await, Ok(()));
    let watermarks = store.retention_watermarks().await.unwrap();
    assert_eq!(watermarks.ms, [0, T0, 0]);
    assert_eq!(
        store.commit(vec![Write::ExpectWatermarks(RetentionWatermarks::default())].into()).await,
        Err(CommitError::Conflict)
    );
    assert_eq!(
        store
            .commit(
                vec![Write::ExpectWatermarks(watermarks), Write::AdvanceWatermark(Tier::Minute, 5)].into()
            )
            .await,
        Ok(())
    );
    assert_eq!(store.retention_watermarks().await.unwrap().ms[1], T0, "a watermark never decreases");
}

async fn sequence_ranges_merge(store: &Arc<dyn Store>) {
    let (id, boot) = (host(7).id, BootId::from_bytes(&[9; 16]).unwrap());
    for (arrival, seqs) in [(9, "1-5"), (10, "9-9"), (11, "6-8")] {
        let ranges = SequenceRanges { host: id, boot, seqs: RangeSet::from_text(seqs), newest_ms: T0 };
        let watermark = SealWatermark { host: id, arrival };
        store
            .commit(vec![Write::RecordSequences(ranges), Write::AdvanceSeal(watermark)].into())
            .await
            .unwrap();
    }
    let stored = store.sequence_ranges(None).await.unwrap();
    let ranges: Vec<String> =
        stored.iter().filter(|ranges| ranges.host == id).map(|ranges| ranges.seqs.to_text()).collect();
    assert_eq!(ranges, ["1-9"]);
    let of_host = store.sequence_ranges(Some(id)).await.unwrap();
    assert!(of_host.len() == 1 && of_host[0].host == id && of_host[0].seqs.to_text() == "1-9");
    assert!(store.sequence_ranges(Some(host(99).id)).await.unwrap().is_empty());
    assert!(store.seal_watermarks().await.unwrap().contains(&SealWatermark { host: id, arrival: 11 }));
    store.vacuum(T0 + 1).await.unwrap();
    assert!(store.sequence_ranges(None).await.unwrap().is_empty());
}

async fn lease_is_renewed_by_its_holder(store: &Arc<dyn Store>) {
    store.renew_leases().await.unwrap();
    let lease = store.lease(LeasedTask::HistoryMaintenance);
    assert!(lease.is_some());
    store.renew_leases().await.unwrap();
    assert_eq!(store.lease(LeasedTask::HistoryMaintenance), lease, "the holder keeps its token");
    store.commit(Transaction::build(|tx| tx.require_lease(lease.unwrap()))).await.unwrap();
}

async fn stored_shapes(store: &dyn Store) -> Vec<Vec<u8>> {
    let rows = store.query("SELECT id FROM shape", Vec::new()).await.unwrap();
    let id = |mut row: Vec<SqlValue>| match row.remove(0) {
        SqlValue::Bytes(id) => id,
        other => panic!("{other:?}"),
    };
    rows.into_iter().map(id).collect()
}

/// Finding C1: shapes stayed for two days.
async fn unused_shapes_are_deleted_at_once(store: &Arc<dyn Store>) {
    let names = ["shapes.a", "shapes.b", "shapes.c"];
    let [sealed, unsealed, both] = names.map(|name| shape(&[name]));
    let is_stored = async |shape: &Arc<perfwatch_model::Shape>| {
        stored_shapes(&**store).await.contains(&shape.id().0.to_vec())
    };
    let id = host(9).id;
    let first = store.append(vec![row(id, &sealed, 1, T0), row(id, &both, 2, T0)]).await.unwrap();
    let last = store.append(vec![row(id, &unsealed, 3, T0)]).await.unwrap();
    let (_, block) = raw_block(id, &both, 0..3, T0);
    store.commit(vec![Write::PutBlock(Tier::Raw, id, both.clone(), block)].into()).await.unwrap();
    store.vacuum(0).await.unwrap();
    assert!(is_stored(&sealed).await && is_stored(&unsealed).await && is_stored(&both).await);
    // The rows of the first commit are in blocks; the block of `sealed` has the columns of other rows.
    store.truncate_head(first + 1).await.unwrap();
    store.vacuum(0).await.unwrap();
    assert!(!is_stored(&sealed).await, "neither a head row nor a block names it");
    assert!(is_stored(&unsealed).await && is_stored(&both).await);
    // A shape returns with its next row, also while it is deleted elsewhere.
    let again = store.append(vec![row(id, &sealed, 4, T0)]).await.unwrap();
    store.vacuum(0).await.unwrap();
    assert!(is_stored(&sealed).await);
    let rows = store.read_head(again - 1, 10).await.unwrap();
    assert_eq!(rows.iter().find(|head| head.arrival == again).unwrap().row.snapshot.shape, sealed);
    let block = store.read_blocks(Tier::Raw, id, T0, T0 + HOUR).await.unwrap().remove(0).block;
    store.commit(vec![Write::DropBlock(block)].into()).await.unwrap();
    store.truncate_head(last.max(again) + 1).await.unwrap();
    store.vacuum(0).await.unwrap();
    for shape in [&sealed, &unsealed, &both] {
        assert!(!is_stored(shape).await);
    }
    store.append(vec![row(host(1).id, &shape(&["a"]), 99, T0)]).await.unwrap();
}

/// Finding C1: the history of all hosts was deleted for one.
async fn watermark_of_a_host_affects_only_its_reads(store: &Arc<dyn Store>) {
    let (id, other) = (host(10).id, host(11).id);
    let from = T0 + 48 * HOUR;
    let advance =
        |ms| vec![Write::MarkDirty(Tier::Raw, other, from), Write::AdvanceHostWatermark(Tier::Raw, id, ms)];
    store.commit(advance(from + HOUR).into()).await.unwrap();
    store.commit(advance(from).into()).await.unwrap();
    let watermark_ms = async |host| shares::host_watermarks(&**store, host).await.unwrap().ms[0];
    assert_eq!(watermark_ms(id).await, from + HOUR, "a watermark never decreases");
    assert_eq!(watermark_ms(other).await, store.retention_watermarks().await.unwrap().ms[0]);
    let tiers = async |host| {
        let result = store.read_range(query(host, Tier::Raw, from, from + 2 * HOUR)).await.unwrap();
        result.plan.iter().map(|segment| (segment.tier, segment.from_ms)).collect::<Vec<_>>()
    };
    assert_eq!(tiers(id).await, [(Tier::Minute, from), (Tier::Raw, from + HOUR)]);
    assert_eq!(tiers(other).await, [(Tier::Raw, from)]);
    store.commit(vec![Write::MarkDirty(Tier::Raw, id, from + HOUR)].into()).await.unwrap();
    let rows_are_not_rolled_up = store.commit(advance(from + 2 * HOUR).into()).await;
    assert_eq!(rows_are_not_rolled_up, Err(CommitError::Conflict));
    for host in [id, other] {
        for window in shares::dirty_windows_of_host(&**store, Tier::Raw, host, i64::MAX, 9).await.unwrap() {
            store.commit(vec![Write::ClearDirty(window)].into()).await.unwrap();
        }
    }
}

/// Finding C1: shapes did not count for their host.
async fn volume_counts_blocks_of_a_period(store: &Arc<dyn Store>) {
    // After the blocks of the other cases.
    let (shape, from) = (shape(&["volume.a"]), T0 + 4_000 * DAY);
    // The series of the hubs are no host.
    for (id, rows) in [(host(1).id, 0..100), (host(2).id, 50..150), (HostId::HUBS, 0..10)] {
        let (_, block) = raw_block(id, &shape, rows, from);
        store.commit(vec![Write::PutBlock(Tier::Raw, id, shape.clone(), block)].into()).await.unwrap();
    }
    let volume = shares::tier_volume(&**store, Tier::Raw, from).await.unwrap();
    assert_eq!(volume.hosts, 2);
    let mut newest = store.oldest_blocks(Tier::Raw, i64::MAX, 10_000).await.unwrap();
    newest.retain(|block| block.first_ms >= from);
    assert_eq!(volume.bytes, newest.iter().map(|block| block.bytes).sum::<u64>());
    let newest = newest.iter().max_by_key(|block| block.last_ms).unwrap().clone();
    assert!(volume.first_ms < newest.first_ms && volume.last_ms == newest.last_ms);
    let later = shares::tier_volume(&**store, Tier::Raw, newest.last_ms).await.unwrap();
    assert_eq!((later.hosts, later.first_ms, later.bytes), (1, newest.first_ms, newest.bytes));
    let none = shares::tier_volume(&**store, Tier::Hour, from).await.unwrap();
    assert_eq!(none, shares::TierVolume::default());
}

async fn budget_is_replaced(store: &Arc<dyn Store>) {
    let target = async || store.disk_usage(None).await.unwrap().target_bytes;
    let (before, head) = (target().await, store.max_head_bytes());
    store.set_budget(8 << 30).await.unwrap();
    let large = target().await;
    assert!(large > 5 << 30 && large != before && store.max_head_bytes() != head);
    store.set_budget(store.min_budget_bytes()).await.unwrap();
    assert!(target().await < large / 10);
    // Rows are still accepted after the change.
    store.append(vec![row(host(1).id, &shape(&["a"]), 1, T0)]).await.unwrap();
    store.vacuum(0).await.unwrap();
}

async fn usage_counts_blocks_and_shapes_by_host(store: &Arc<dyn Store>) {
    let (small, large) = (host(12).id, host(13).id);
    for (id, names) in [(small, vec!["usage.a"]), (large, vec!["usage.a", "usage.b", "usage.c"])] {
        for name in names {
            let shape = shape(&[name]);
            let (_, block) = raw_block(id, &shape, 0..9, T0);
            store.commit(vec![Write::PutBlock(Tier::Raw, id, shape, block)].into()).await.unwrap();
        }
    }
    let usage = shares::list_host_usage(&**store).await.unwrap();
    assert_eq!((usage[&small].shapes, usage[&large].shapes), (1, 3));
    assert_eq!(usage[&large].shape_bytes, 3 * usage[&small].shape_bytes);
    assert_eq!(usage[&large].tier_bytes, [3 * usage[&small].tier_bytes[0], 0, 0]);
    assert_eq!(shares::count_shapes(&**store, large).await.unwrap(), 3);
    let [raw, minute, _] = shares::host_storage(&**store, large).await.unwrap();
    assert_eq!((raw.bytes, raw.first_ms), (usage[&large].tier_bytes[0], Some(T0)));
    assert!(raw.last_ms > raw.first_ms);
    assert_eq!(minute, shares::TierStorage::default());
    let oldest = shares::oldest_blocks_of_host(&**store, Tier::Raw, large, i64::MAX, 9).await.unwrap();
    assert!(oldest.len() == 3 && oldest.iter().all(|block| block.host == large));
}

//! Checks that each accepted row is stored once, and that roll-ups equal a recount.

use super::hub::SimulatedHub;
use super::reference::{HostReference, RowKey, row_key};
use perfwatch_model::{HostId, MISSING, Shape, Snapshot};
use perfwatch_store::{BlockContent, BlockSlice};
use perfwatch_tsdb::query::Points;
use perfwatch_tsdb::rollup::bucket_start;
use perfwatch_tsdb::{BucketStats, Projection, Tier};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Time range that contains all rows of a simulation.
pub(super) type TimeRange = (i64, i64);

/// Metric and instance.
type SeriesKey = (String, String);

/// Statistics by series and start of the bucket.
type Recount = BTreeMap<SeriesKey, BTreeMap<i64, BucketStats>>;

fn series_key(shape: &Shape, column: usize) -> SeriesKey {
    let column = &shape.columns()[column];
    (column.metric.to_string(), column.instance.to_string())
}

/// Values of a row that are not missing.
fn values(row: &Snapshot) -> BTreeMap<SeriesKey, i64> {
    let values = row.values.iter().enumerate().filter(|(_, value)| **value != MISSING);
    values.map(|(column, value)| (series_key(&row.shape, column), *value)).collect()
}

/// Raw rows of a host, sealed or not, in the order of their keys.
pub(super) async fn raw_rows(hub: &SimulatedHub, host: HostId, range: TimeRange) -> Vec<Arc<Snapshot>> {
    let projection = Arc::new(Projection::full());
    let joined = hub.history.read(host, Tier::Raw, range, &projection).await.unwrap();
    let mut rows: Vec<Arc<Snapshot>> = joined.unsealed.iter().flat_map(|table| table.snapshots()).collect();
    for slice in &joined.sealed.slices {
        if let BlockContent::Raw(table) = slice.content.as_ref().unwrap() {
            let in_slice = |row: &Arc<Snapshot>| (slice.from_ms..slice.to_ms).contains(&row.at_ms);
            rows.extend(table.snapshots().into_iter().filter(in_slice));
        }
    }
    rows.sort_by_key(|row| row_key(row));
    rows
}

/// Checks that the raw rows of a host are exactly the accepted rows that retention has not deleted.
pub(super) async fn check_rows(hub: &SimulatedHub, reference: &HostReference, range: TimeRange) {
    let watermark_ms = hub.store.retention_watermarks().await.unwrap().tier_ms(Tier::Raw);
    let stored = raw_rows(hub, reference.host, range).await;
    let is_retained = |row: &&Arc<Snapshot>| row.at_ms >= watermark_ms;
    let stored: Vec<&Arc<Snapshot>> = stored.iter().filter(is_retained).collect();
    let keys: Vec<RowKey> = stored.iter().map(|row| row_key(row)).collect();
    let host = reference.host;
    let repeated = keys.windows(2).find(|pair| pair[0] == pair[1]);
    assert!(repeated.is_none(), "{host}: row {repeated:?} is stored twice");
    let accepted: BTreeMap<RowKey, &Arc<Snapshot>> =
        reference.rows.values().filter(is_retained).map(|row| (row_key(row), row)).collect();
    let lost = accepted.iter().find(|(key, _)| keys.binary_search(key).is_err());
    assert!(lost.is_none(), "{host}: acknowledged row {lost:?} is lost");
    for row in stored {
        let Some(expected) = accepted.get(&row_key(row)) else {
            panic!("{host}: row {row:?} was not acknowledged")
        };
        let times = (row.at_ms, row.interval_ms);
        assert_eq!(times, (expected.at_ms, expected.interval_ms), "{host}: times of {:?}", row_key(row));
        assert_eq!(values(row), values(expected), "{host}: values of {:?}", row_key(row));
    }
}

/// Statistics of the accepted rows by buckets of a width.
fn recount(reference: &HostReference, width_ms: i64) -> Recount {
    let mut rows: Vec<&Arc<Snapshot>> = reference.rows.values().collect();
    rows.sort_by_key(|row| (row.at_ms, row_key(row)));
    let mut recount = Recount::new();
    for row in rows {
        for (key, value) in values(row) {
            let buckets = recount.entry(key).or_default();
            let stats = buckets.entry(bucket_start(row.at_ms, width_ms)).or_insert(BucketStats::EMPTY);
            *stats = stats.merge(BucketStats::from_value(value));
        }
    }
    recount
}

/// Statistics of the blocks and unsealed rows of a host, as a chart shows them.
async fn joined_statistics(hub: &SimulatedHub, host: HostId, tier: Tier, range: TimeRange) -> Recount {
    let projection = Arc::new(Projection::full());
    let joined = hub.history.read(host, tier, range, &projection).await.unwrap();
    let mut grids: BTreeMap<SeriesKey, Points> = BTreeMap::new();
    let mut add = |shape: &Shape, add_to: &dyn Fn(&mut Points, usize)| {
        for column in 0..shape.columns().len() {
            let new_grid = || Points::new(range.0, range.1, tier.width_ms());
            add_to(grids.entry(series_key(shape, column)).or_insert_with(new_grid), column);
        }
    };
    for BlockSlice { from_ms, to_ms, content, .. } in &joined.sealed.slices {
        match content.as_ref().unwrap() {
            BlockContent::Raw(table) => {
                add(&table.shape, &|points, column| points.add_ticks(table, column, *from_ms, *to_ms));
            }
            BlockContent::Buckets(buckets) => {
                add(&buckets.shape, &|points, column| points.add_buckets(buckets, column, *from_ms, *to_ms));
            }
        }
    }
    for table in &joined.unsealed {
        add(&table.shape, &|points, column| points.add_ticks(table, column, range.0, range.1));
    }
    let to_buckets = |points: Points| {
        let start_ms = |index: usize| points.from_ms + i64::try_from(index).unwrap() * points.step_ms;
        let stats = points.stats().iter().enumerate();
        stats.filter(|(_, stats)| stats.count > 0).map(|(index, stats)| (start_ms(index), *stats)).collect()
    };
    grids.into_iter().map(|(key, points)| (key, to_buckets(points))).collect()
}

/// Statistics of the stored blocks of a tier.
async fn rolled_up_statistics(hub: &SimulatedHub, host: HostId, tier: Tier, range: TimeRange) -> Recount {
    let mut statistics = Recount::new();
    for slice in hub.store.read_blocks(tier, host, range.0, range.1).await.unwrap() {
        let BlockContent::Buckets(buckets) = slice.content.unwrap() else { panic!("a block of buckets") };
        for (column, stats) in buckets.columns.iter().enumerate() {
            let series = statistics.entry(series_key(&buckets.shape, column)).or_default();
            for (start_ms, stats) in
                buckets.start_ms.iter().zip(&stats.0).filter(|(_, stats)| stats.count > 0)
            {
                let previous = series.insert(*start_ms, *stats);
                assert!(previous.is_none(), "{host}: bucket {start_ms} of {} exists twice", tier.name());
            }
        }
    }
    statistics
}

/// Compares statistics with a recount of the accepted rows. The last value of a bucket is compared unless rows
/// were added to it after the raw rows had been deleted.
fn compare(reference: &HostReference, tier: Tier, statistics: &Recount, compare_last: bool) {
    let mut expected = recount(reference, tier.width_ms());
    let mut statistics = statistics.clone();
    statistics.retain(|_, buckets| !buckets.is_empty());
    if !compare_last {
        let buckets = expected.values_mut().chain(statistics.values_mut());
        buckets.flat_map(BTreeMap::values_mut).for_each(|stats| stats.last = MISSING);
    }
    let host = reference.host;
    for (key, buckets) in &expected {
        for (start_ms, stats) in buckets {
            let rolled_up = statistics.get(key).and_then(|buckets| buckets.get(start_ms));
            assert_eq!(rolled_up, Some(stats), "{host}: {key:?} in {} at {start_ms}", tier.name());
        }
    }
    assert_eq!(statistics, expected, "{host}: buckets without rows");
}

/// Checks that minutes and hours equal a recount of the accepted rows, wherever they are stored.
pub(super) async fn check_rollups(hub: &SimulatedHub, reference: &HostReference, range: TimeRange) {
    for tier in [Tier::Minute, Tier::Hour] {
        let statistics = joined_statistics(hub, reference.host, tier, range).await;
        compare(reference, tier, &statistics, false);
    }
}

/// Checks that all rows are rolled up, and that the blocks equal a recount of the accepted rows.
pub(super) async fn check_rolled_up(
    hub: &SimulatedHub,
    reference: &HostReference,
    range: TimeRange,
    compare_last: bool,
) {
    for tier in [Tier::Minute, Tier::Hour] {
        let statistics = rolled_up_statistics(hub, reference.host, tier, range).await;
        compare(reference, tier, &statistics, compare_last);
    }
}

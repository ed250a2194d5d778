//! Reads stay within their bounds, whatever columns a host sends.

use super::*;
use crate::export::{Export, Format, parse_tier, projection_for};
use crate::grid::{GridBounds, GridRequest};
use crate::series::SeriesRequest;
use crate::series_points::SeriesValues;
use perfwatch_model::limits;
use perfwatch_model::limits::MAX_READ_CELLS;
use perfwatch_store::ReadBounds;

/// Row at `T0` plus `seq` seconds whose instances have a prefix.
fn wide_row(host: &TestHistory, seq: u64, prefix: &str, columns: usize) -> Arc<Snapshot> {
    let column = |index: usize| Column {
        metric: "network.rx_bytes".into(),
        dimension: "interface".into(),
        instance: format!("{prefix}{index}").into(),
        decimals: 0,
    };
    let shape = Arc::new(Shape::new((0..columns).map(column).collect()));
    let at_ms = T0 + i64::try_from(seq).unwrap() * 1_000;
    let values = (0..columns).map(|index| i64::try_from(index).unwrap()).collect();
    Arc::new(Snapshot { interval_ms: 1_000, shape, values, ..(*host.row(1, seq, at_ms)).clone() })
}

pub(super) fn request(host: &TestHistory, selector: &str, max_points: usize) -> SeriesRequest {
    let selectors = vec![SeriesSelector::parse(selector)];
    let (host, range) = (host.host, (T0, T0 + HOUR));
    SeriesRequest { host, selectors, range, max_points, interval_ms: 1_000, held: None }
}

/// Finding H4: a host whose columns change with each row.
pub(super) async fn changing_columns_are_refused_before_they_are_read(backend: TestBackend) {
    let mut host = TestHistory::new(backend, HistoryConfig::default()).await;
    let rows = (0..8).map(|seq| wide_row(&host, seq, &format!("{seq}-"), limits::MAX_COLUMNS)).collect();
    host.advance_to(T0 + HOUR);
    host.send(rows).await;
    for sealed in [false, true] {
        if sealed {
            host.history.seal(true).await.unwrap();
        }
        for selector in ["network.*", "network.rx_bytes", "*"] {
            let Err(StoreError::TooLarge(size)) =
                host.history.plan_series(request(&host, selector, 600)).await
            else {
                panic!("{selector} {sealed}")
            };
            assert!(size.series > 50_000, "{size:?}");
        }
        let plan = host.history.plan_series(request(&host, "network.rx_bytes{3-7}", 600)).await.unwrap();
        let result = host.history.read_series(plan).await.unwrap();
        assert_eq!(result.series.len(), 1);
    }
}

/// Finding H4: the largest honest host is read in parts, with a coarser step instead of an error.
pub(super) async fn largest_host_is_read_in_parts_with_a_coarser_step(backend: TestBackend) {
    let mut host = TestHistory::new(backend, HistoryConfig::default()).await;
    let columns = limits::MAX_COLUMNS;
    let rows: Vec<Arc<Snapshot>> = (0..320).map(|seq| wide_row(&host, seq, "", columns)).collect();
    host.advance_to(T0 + HOUR);
    host.send(rows).await;
    host.history.seal(true).await.unwrap();
    let plan = host.history.plan_series(request(&host, "network.*", 10_000)).await.unwrap();
    assert!(plan.memory_bytes() <= 64 << 20, "{}", plan.memory_bytes());
    let result = host.history.read_series(plan).await.unwrap();
    assert_eq!((result.series.len(), result.gaps.len(), result.tier), (columns, 0, Tier::Raw));
    assert!(
        result.step_ms >= 60_000 && result.at_ms.len() <= 10,
        "{} {}",
        result.step_ms,
        result.at_ms.len()
    );
    for series in &result.series {
        let SeriesValues::Points(points) = &series.values else { panic!("raw rows") };
        let (count, sum) =
            points.stats().iter().fold((0, 0), |(count, sum), s| (count + s.count, sum + s.sum));
        let value: i128 = series.instance.parse().unwrap();
        assert_eq!((count, sum), (320, value * 320), "{}", series.instance);
    }
    // Reads of the hub itself have no bounds; other reads fail before they decode too much.
    let all = Arc::new(Projection::of_series(vec![SeriesSelector::parse("*")]));
    let bounds = ReadBounds { max_cells: 100_000, ..ReadBounds::default() };
    let read = host.history.read_bounded(host.host, Tier::Raw, (T0, T0 + HOUR), &all, &bounds).await;
    assert!(matches!(read, Err(StoreError::TooLarge(size)) if size.cells < MAX_READ_CELLS));
    // What is no longer needed ends.
    bounds.cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
    let read = host.history.read_bounded(host.host, Tier::Raw, (T0, T0 + HOUR), &all, &bounds).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))));
}

/// Finding H4: an export holds a part of the range at a time, and its text does not depend on the parts.
pub(super) async fn export_in_parts_equals_export_at_once(backend: TestBackend) {
    let mut host = TestHistory::new(backend, HistoryConfig::default()).await;
    let rows = (0..200).map(|seq| wide_row(&host, seq, "eth", 3)).collect();
    host.advance_to(T0 + HOUR);
    host.send(rows).await;
    for (tier, format) in [("raw", Format::Csv), ("raw", Format::JsonLines), ("1m", Format::Csv)] {
        let mut texts = Vec::new();
        for part_ms in [None, Some(60_000), Some(1)] {
            let projection = projection_for(Vec::new(), format);
            let (id, range) = ((host.host, "h".to_owned()), (T0 + 1_500, T0 + 190_000));
            let tier = parse_tier(Some(tier)).unwrap();
            let mut export = Export::new(host.history.clone(), id, tier, projection, format, range);
            export.part_ms = part_ms;
            let mut text = String::new();
            while let Some(chunk) = export.next().await {
                text += &chunk.unwrap();
            }
            texts.push(text);
        }
        assert!(
            texts[0].lines().count() > 3 && texts.iter().all(|text| *text == texts[0]),
            "{tier}: {texts:?}"
        );
    }
}

/// A grid has the same values, whether the range is read at once or in parts, and bounds are errors.
pub(super) async fn grid_in_parts_equals_grid_at_once(backend: TestBackend) {
    let mut host = TestHistory::new(backend, HistoryConfig::default()).await;
    host.run(1, T0, T0 + 5 * HOUR).await;
    let read = |tier: Tier, bounds: GridBounds| {
        let selectors = vec![SeriesSelector::parse("cpu.*")];
        let (id, range) = (host.host, (T0 + 30 * MINUTE, T0 + 5 * HOUR));
        let request =
            GridRequest { host: id, selectors, range, step_ms: 5 * MINUTE, tier, bounds, held: None };
        host.history.read_grid(request)
    };
    let large = GridBounds { part_cells: 1 << 20, cells: 1 << 20, points: 1_000 };
    // A part is at least as long as a block: an hour of raw rows, a day of minutes.
    for (tier, part_cells) in [(Tier::Raw, 4_000), (Tier::Minute, 20_000)] {
        let whole = read(tier, large).await.unwrap();
        let parts = read(tier, GridBounds { part_cells, ..large }).await.unwrap();
        let (name, points) = whole.series.first_key_value().unwrap();
        assert_eq!((name.0.as_str(), whole.series.len(), points.len()), ("cpu.usage", 1, 54));
        assert_eq!(parts.series[name].stats(), points.stats(), "{tier:?}");
        let sums = points.stats().iter().map(|stats| stats.count).sum::<i64>();
        let sent = host.sent.iter().filter(|row| row.at_ms >= T0 + 30 * MINUTE);
        let sent = sent.filter(|row| row.values[0] != perfwatch_model::MISSING).count();
        assert_eq!(sums, i64::try_from(sent).unwrap(), "{tier:?}");
        assert!(whole.cells >= sent.min(270), "{} values", whole.cells);
    }
    for bounds in [GridBounds { cells: 1_000, ..large }, GridBounds { points: 50, ..large }] {
        assert!(matches!(read(Tier::Raw, bounds).await, Err(StoreError::TooLarge(_))), "{bounds:?}");
    }
}

//! Pages of the recent window as JSON: full snapshots, or the columns of some metrics. A page has a bounded
//! size, whatever columns the host has; older snapshots follow in the next page.

use super::published::PublishedSnapshot;
use perfwatch_model::{Catalog, HostId, MISSING, Shape, ShapeId, fixed_point};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

/// Maximum number of snapshots in a page.
const MAX_PAGE_SNAPSHOTS: usize = 300;
/// Maximum number of values in a page of columns, unless a single snapshot has more.
const MAX_PAGE_VALUES: usize = 250_000;
/// Maximum size of a page of full snapshots, unless a single snapshot is larger.
const MAX_PAGE_BYTES: usize = 4 << 20;
/// Memory in bytes that a page needs while it is built.
pub const PAGE_MEMORY_BYTES: usize = 16 << 20;

/// Series of a page: metric, instance, decimals, and a value per snapshot.
struct PageSeries<'a> {
    metric: &'a str,
    instance: &'a str,
    values: Vec<(i64, u8)>,
}

/// Newest full snapshots of a window that is ordered by time.
pub fn snapshots_page(host: HostId, window: &[Arc<PublishedSnapshot>]) -> String {
    let (mut texts, mut bytes) = (Vec::new(), 0);
    for published in window.iter().rev().take(MAX_PAGE_SNAPSHOTS) {
        let text = published.to_json();
        bytes += text.len();
        if bytes > MAX_PAGE_BYTES && !texts.is_empty() {
            break;
        }
        texts.push(text);
    }
    let before = next_before(window, texts.len());
    texts.reverse();
    format!("{{\"host_id\":\"{host}\",\"snapshots\":[{}],\"before\":{}}}", texts.join(","), json!(before))
}

/// Start of the next page, which ends before the oldest snapshot of this page; `None` on the last page.
fn next_before(window: &[Arc<PublishedSnapshot>], rows: usize) -> Option<i64> {
    let skipped = window.len().saturating_sub(rows);
    (skipped > 0).then(|| window.get(skipped).map(|oldest| oldest.snapshot.at_ms)).flatten()
}

/// Columns of some metrics of the newest snapshots of a window that is ordered by time.
///
/// # Errors
/// Returns the name of a metric that neither the catalog nor the page contains.
pub fn columns_page(
    host: HostId,
    window: &[Arc<PublishedSnapshot>],
    metrics: &HashSet<String>,
    catalog: &Catalog,
) -> Result<String, String> {
    let rows = count_rows(window, metrics);
    let page = &window[window.len() - rows..];
    let mut series: Vec<PageSeries<'_>> = Vec::new();
    let mut by_name: HashMap<(&str, &str), usize> = HashMap::new();
    let mut by_shape: HashMap<ShapeId, Vec<(usize, usize)>> = HashMap::new();
    for (row, published) in page.iter().enumerate() {
        let snapshot = &published.snapshot;
        let columns = snapshot.shape.columns();
        let indices = by_shape.entry(snapshot.shape.id()).or_insert_with(|| {
            let mut indices = Vec::new();
            for column in selected_columns(&snapshot.shape, metrics) {
                let (metric, instance) = (&*columns[column].metric, &*columns[column].instance);
                let index = *by_name.entry((metric, instance)).or_insert_with(|| {
                    let values = vec![(MISSING, 0); page.len()];
                    series.push(PageSeries { metric, instance, values });
                    series.len() - 1
                });
                indices.push((column, index));
            }
            indices
        });
        for &(column, index) in indices.iter() {
            let value = snapshot.values.get(column).copied().unwrap_or(MISSING);
            series[index].values[row] = (value, columns[column].decimals);
        }
    }
    let present: HashSet<&str> = series.iter().map(|series| series.metric).collect();
    let is_known = |name: &str| catalog.get(name).is_some() || present.contains(name);
    if let Some(unknown) = metrics.iter().find(|name| !is_known(name)) {
        return Err(unknown.clone());
    }
    let times: Vec<i64> = page.iter().map(|published| published.snapshot.at_ms).collect();
    Ok(write_columns(host, &times, &series, next_before(window, rows), catalog))
}

fn selected_columns<'a>(
    shape: &'a Shape,
    metrics: &'a HashSet<String>,
) -> impl Iterator<Item = usize> + use<'a> {
    let columns = shape.columns().iter().enumerate();
    columns.filter(|(_, column)| metrics.contains(&*column.metric)).map(|(index, _)| index)
}

/// Number of the newest snapshots whose series fit into a page; at least one.
fn count_rows(window: &[Arc<PublishedSnapshot>], metrics: &HashSet<String>) -> usize {
    let mut series: HashSet<(&str, &str)> = HashSet::new();
    let mut shapes: HashSet<ShapeId> = HashSet::new();
    let newest = window.iter().rev().take(MAX_PAGE_SNAPSHOTS);
    let fitting = newest.enumerate().take_while(|(row, published)| {
        let shape = &published.snapshot.shape;
        if shapes.insert(shape.id()) {
            let columns = shape.columns();
            series.extend(
                selected_columns(shape, metrics)
                    .map(|index| (&*columns[index].metric, &*columns[index].instance)),
            );
        }
        *row == 0 || series.len().saturating_mul(row + 1) <= MAX_PAGE_VALUES
    });
    fitting.count()
}

fn write_columns(
    host: HostId,
    times: &[i64],
    series: &[PageSeries<'_>],
    before: Option<i64>,
    catalog: &Catalog,
) -> String {
    let mut out = String::with_capacity(256 + series.len() * (64 + times.len() * 6));
    // Writing to a String cannot fail.
    let _ = write!(out, "{{\"host_id\":\"{host}\",\"times\":{},\"series\":[", json!(times));
    for (index, series) in series.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let unit = catalog.get(series.metric).map(|def| def.unit);
        let name = json!({ "metric": series.metric, "instance": series.instance, "unit": unit }).to_string();
        out.push_str(name.trim_end_matches('}'));
        out.push_str(",\"values\":[");
        for (row, &(value, decimals)) in series.values.iter().enumerate() {
            if row > 0 {
                out.push(',');
            }
            fixed_point::write_scaled(&mut out, value, decimals);
        }
        out.push_str("]}");
    }
    let _ = write!(out, "],\"before\":{}}}", json!(before));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::{BootId, Column, Snapshot, limits};
    use serde_json::Value;
    use std::time::Duration;

    const ROWS: i64 = 310;

    /// Window of a host with `columns` columns; their names change with each snapshot if `is_changing`.
    fn window(columns: usize, is_changing: bool) -> Vec<Arc<PublishedSnapshot>> {
        let shape = |row: i64| {
            let prefix = if is_changing { row } else { 0 };
            let column = |index: usize| Column {
                metric: "network.rx_bytes".into(),
                dimension: "interface".into(),
                instance: format!("{prefix}-{index}").into(),
                decimals: 1,
            };
            Arc::new(Shape::new((0..columns).map(column).collect()))
        };
        let constant = shape(0);
        let snapshot = |row: i64| Snapshot {
            boot: BootId::default(),
            seq: row.unsigned_abs(),
            at_ms: row,
            interval_ms: 1_000,
            shape: if is_changing { shape(row) } else { constant.clone() },
            values: vec![row * 10 + 5; columns],
            processes: vec![],
            facts: None,
            errors: vec![],
        };
        let host = HostId::generate();
        let publish = |row| PublishedSnapshot::new(host, "h".into(), Arc::new(snapshot(row)), Duration::ZERO);
        (0..ROWS).map(|row| Arc::new(publish(row))).collect()
    }

    /// Reads all pages and returns the number of snapshots of each.
    fn pages(mut window: &[Arc<PublishedSnapshot>], page: impl Fn(&[Arc<PublishedSnapshot>]) -> String) {
        let mut expected = ROWS;
        loop {
            let text = page(window);
            assert!(text.len() < 3 * MAX_PAGE_BYTES, "{}", text.len());
            let json: Value = serde_json::from_str(&text).unwrap();
            let times: Vec<i64> = match json["times"].as_array() {
                Some(times) => times.iter().map(|at| at.as_i64().unwrap()).collect(),
                None => vec![expected; json["snapshots"].as_array().unwrap().len()],
            };
            assert!(!times.is_empty() && times.len() <= MAX_PAGE_SNAPSHOTS);
            expected -= i64::try_from(times.len()).unwrap();
            let Some(before) = json["before"].as_i64() else { break };
            assert_eq!(before, expected);
            window = &window[..usize::try_from(before).unwrap()];
        }
        assert_eq!(expected, 0);
    }

    fn metrics(names: &[&str]) -> HashSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// Finding H5: pages of the largest host, and of a host whose columns change with each snapshot.
    #[test]
    fn recent_pages_are_bounded_and_complete() {
        let (catalog, metrics) = (Catalog::default(), metrics(&["network.rx_bytes"]));
        for (columns, is_changing) in [(3, false), (1_000, false), (limits::MAX_COLUMNS, false), (500, true)]
        {
            let window = window(columns, is_changing);
            let host = window[0].host;
            pages(&window, |window| columns_page(host, window, &metrics, &catalog).unwrap());
            if columns < limits::MAX_COLUMNS {
                pages(&window, |window| snapshots_page(host, window));
            }
        }
    }

    #[test]
    fn columns_have_their_values_and_missing_metrics_are_reported() {
        let (window, catalog) = (window(2, true), Catalog::default());
        let host = window[0].host;
        let text = columns_page(host, &window[4..6], &metrics(&["network.rx_bytes"]), &catalog).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["times"], json!([4, 5]));
        let series =
            |index: usize| (json["series"][index]["instance"].clone(), &json["series"][index]["values"]);
        assert_eq!(series(0), (json!("4-0"), &json!([4.5, null])));
        assert_eq!(series(3), (json!("5-1"), &json!([null, 5.5])));
        assert_eq!(columns_page(host, &window, &metrics(&["x"]), &catalog), Err("x".to_owned()));
    }
}

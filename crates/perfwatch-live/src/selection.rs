//! Metric selections, shared by subscribers with equal requests.

use super::client_share::{ClientShare, LiveResource, Reservation};
use perfwatch_model::{SelectorIndex, SeriesSelector, Shape, ShapeId, limits};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Maximum number of shapes per selection whose columns are cached.
const MAX_CACHED_SHAPES: usize = 1_000;

/// Columns of a shape that a selection contains.
#[derive(Debug)]
pub struct SelectedColumns {
    /// Indices of the columns in the shape.
    pub indices: Vec<usize>,
    /// Description of the columns as JSON: `[{"metric": …, "instance": …, "decimals": …}, …]`.
    pub columns: String,
}

/// Selected series, and whether top processes are included.
pub struct Selection {
    /// Identifier that is unique in this process.
    pub id: u64,
    /// Selectors of the series; empty for all series.
    series: Vec<SeriesSelector>,
    /// Inclusion of the top processes.
    pub processes: bool,
    projections: Mutex<HashMap<ShapeId, (Arc<SelectedColumns>, CachedBytes)>>,
    /// Share of the account that requested the selection first.
    share: Arc<ClientShare>,
    _reservation: Reservation,
    /// Bytes of the cached encodings of all selections.
    cached_bytes: Arc<AtomicUsize>,
}

/// Size of a cached encoding, which is free again when it is dropped.
#[derive(Debug)]
pub struct CachedBytes {
    bytes: usize,
    total: Arc<AtomicUsize>,
    _share: Reservation,
}

impl Drop for CachedBytes {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Selection {
    /// Selected columns of a shape, computed once per shape.
    pub fn project(&self, shape: &Shape) -> Arc<SelectedColumns> {
        let mut projections = self.projections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cached, _)) = projections.get(&shape.id()) {
            return cached.clone();
        }
        if projections.len() > MAX_CACHED_SHAPES {
            projections.clear();
        }
        let selectors = SelectorIndex::new(&self.series);
        let (mut indices, mut described) = (Vec::new(), Vec::new());
        for (index, column) in shape.columns().iter().enumerate() {
            if self.series.is_empty() || selectors.contains(&column.metric, &column.instance) {
                indices.push(index);
                described.push(serde_json::json!({
                    "metric": column.metric, "instance": column.instance, "decimals": column.decimals
                }));
            }
        }
        let columns = serde_json::Value::Array(described).to_string();
        let selected = Arc::new(SelectedColumns { indices, columns });
        let bytes = selected.columns.len() + size_of_val(&*selected.indices);
        let mut cached = self.reserve_encoding(bytes);
        if cached.is_none() {
            projections.clear();
            cached = self.reserve_encoding(bytes);
        }
        if let Some(cached) = cached {
            projections.insert(shape.id(), (selected.clone(), cached));
        }
        selected
    }

    /// Reserves memory for a cached encoding; `None` above the share of the account or the limit of all
    /// accounts.
    pub(crate) fn reserve_encoding(&self, bytes: usize) -> Option<CachedBytes> {
        let share = self.share.reserve(LiveResource::Encodings, bytes)?;
        let before = self.cached_bytes.fetch_add(bytes, Ordering::Relaxed);
        let cached = CachedBytes { bytes, total: self.cached_bytes.clone(), _share: share };
        (before + bytes <= limits::MAX_ENCODING_BYTES).then_some(cached)
    }
}

type SelectionKey = (Vec<String>, bool);

/// Selections of all subscriptions.
#[derive(Default)]
pub struct Selections {
    by_key: Mutex<HashMap<SelectionKey, Weak<Selection>>>,
    next_id: AtomicU64,
    cached_bytes: Arc<AtomicUsize>,
}

impl Selections {
    /// Selection of these series (`cpu.usage`, `cpu.*`, `network.rx_bytes{eth0}`); an empty list selects
    /// all series. Equal requests share a selection, which counts for the account that requested it first;
    /// `None` above the share of that account.
    pub fn get(
        &self,
        mut metrics: Vec<String>,
        processes: bool,
        share: &Arc<ClientShare>,
    ) -> Option<Arc<Selection>> {
        metrics.sort_unstable();
        metrics.dedup();
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (metrics, processes);
        if let Some(selection) = by_key.get(&key).and_then(Weak::upgrade) {
            return Some(selection);
        }
        let reservation = share.reserve(LiveResource::Selections, 1)?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let series = key.0.iter().map(|text| SeriesSelector::parse(text)).collect();
        let selection = Arc::new(Selection {
            id,
            series,
            processes,
            projections: Mutex::default(),
            share: share.clone(),
            _reservation: reservation,
            cached_bytes: self.cached_bytes.clone(),
        });
        by_key.insert(key, Arc::downgrade(&selection));
        Some(selection)
    }

    /// Removes selections without subscriptions.
    pub fn prune(&self) {
        self.by_key
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, selection| selection.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perfwatch_model::Column;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn equal_selections_are_shared_and_pruned() {
        let (selections, share) = (Selections::default(), Arc::default());
        let get = |metrics: &[&str], processes| selections.get(names(metrics), processes, &share).unwrap();
        let selection = get(&["b", "a", "a"], true);
        assert!(Arc::ptr_eq(&selection, &get(&["a", "b"], true)));
        assert_ne!(selection.id, get(&["a", "b"], false).id);
        selections.prune();
        assert_eq!(selections.by_key.lock().unwrap().len(), 1);
    }

    #[test]
    fn metric_groups_match() {
        let column = |(metric, instance): (&'static str, &'static str)| Column {
            metric: metric.into(),
            dimension: "".into(),
            instance: instance.into(),
            decimals: 0,
        };
        let columns =
            [("cpu.usage", ""), ("cpufreq.x", ""), ("cpu.core.usage", "0"), ("cpu.core.usage", "1")];
        let shape = Shape::new(columns.map(column).into());
        let (selections, share) = (Selections::default(), Arc::default());
        for (patterns, expected) in [
            (&["cpu.*"][..], &["cpu.core.usage", "cpu.core.usage", "cpu.usage"][..]),
            (&["cpu.usage"], &["cpu.usage"]),
            (&["cpu"], &[]),
            (&["cpu.core.usage{1}"], &["cpu.core.usage"]),
            (&["cpu", "cpufreq.x"], &["cpufreq.x"]),
            (&[], &["cpu.core.usage", "cpu.core.usage", "cpu.usage", "cpufreq.x"]),
        ] {
            let selected = selections.get(names(patterns), false, &share).unwrap().project(&shape);
            let metric = |index: &usize| shape.columns()[*index].metric.to_string();
            let mut metrics: Vec<String> = selected.indices.iter().map(metric).collect();
            metrics.sort_unstable();
            assert_eq!(metrics, expected, "{patterns:?}");
        }
    }

    /// Finding M1: selections and encodings are bounded per account, and do not limit other accounts.
    #[test]
    fn selections_and_encodings_are_bounded_per_account() {
        let (selections, one, other) = (Selections::default(), Arc::default(), Arc::default());
        let get = |index: usize, share| selections.get(vec![format!("m{index}")], false, share);
        let held: Vec<Arc<Selection>> = (0..).map_while(|index| get(index, &one)).collect();
        assert_eq!(held.len(), limits::MAX_SELECTIONS_PER_ACCOUNT);
        assert!(get(held.len(), &other).is_some());
        assert!(get(0, &one).is_some(), "shared selections need no share");
        let shape = |index: usize| {
            let column = |number: usize| Column {
                metric: "m0".into(),
                dimension: "x".into(),
                instance: format!("{index}-{number}").into(),
                decimals: 0,
            };
            Shape::new((0..5_000).map(column).collect())
        };
        for index in 0..200 {
            assert_eq!(held[0].project(&shape(index)).indices.len(), 5_000);
            let used = one.used(LiveResource::Encodings);
            assert!(used <= limits::MAX_ENCODING_BYTES_PER_ACCOUNT, "{used}");
        }
        drop(held);
        assert_eq!((one.used(LiveResource::Encodings), one.used(LiveResource::Selections)), (0, 0));
        assert_eq!(selections.cached_bytes.load(Ordering::Relaxed), 0);
    }
}

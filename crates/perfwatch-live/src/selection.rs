//! Metric selections, shared by subscribers with equal requests.

use perfwatch_model::{SeriesSelector, Shape, ShapeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
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
    projections: Mutex<HashMap<ShapeId, Arc<SelectedColumns>>>,
}

impl Selection {
    /// Selected columns of a shape, computed once per shape.
    pub fn project(&self, shape: &Shape) -> Arc<SelectedColumns> {
        let mut projections = self.projections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = projections.get(&shape.id()) {
            return cached.clone();
        }
        if projections.len() > MAX_CACHED_SHAPES {
            projections.clear();
        }
        let (mut indices, mut described) = (Vec::new(), Vec::new());
        for (index, column) in shape.columns().iter().enumerate() {
            if self.contains(&column.metric, &column.instance) {
                indices.push(index);
                described.push(serde_json::json!({
                    "metric": column.metric, "instance": column.instance, "decimals": column.decimals
                }));
            }
        }
        let columns = serde_json::Value::Array(described).to_string();
        let selected = Arc::new(SelectedColumns { indices, columns });
        projections.insert(shape.id(), selected.clone());
        selected
    }

    fn contains(&self, metric: &str, instance: &str) -> bool {
        self.series.is_empty() || self.series.iter().any(|selector| selector.matches(metric, instance))
    }
}

type SelectionKey = (Vec<String>, bool);

/// Selections of all subscriptions.
#[derive(Default)]
pub struct Selections {
    by_key: Mutex<HashMap<SelectionKey, Weak<Selection>>>,
    next_id: AtomicU64,
}

impl Selections {
    /// Selection of these series (`cpu.usage`, `cpu.*`, `network.rx_bytes{eth0}`); an empty list selects
    /// all series. Equal requests share a selection.
    pub fn get(&self, mut metrics: Vec<String>, processes: bool) -> Arc<Selection> {
        metrics.sort_unstable();
        metrics.dedup();
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (metrics, processes);
        if let Some(selection) = by_key.get(&key).and_then(Weak::upgrade) {
            return selection;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let series = key.0.iter().map(|text| SeriesSelector::parse(text)).collect();
        let selection = Arc::new(Selection { id, series, processes, projections: Mutex::default() });
        by_key.insert(key, Arc::downgrade(&selection));
        selection
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
        let selections = Selections::default();
        let selection = selections.get(names(&["b", "a", "a"]), true);
        assert!(Arc::ptr_eq(&selection, &selections.get(names(&["a", "b"]), true)));
        assert_ne!(selection.id, selections.get(names(&["a", "b"]), false).id);
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
        let selections = Selections::default();
        for (patterns, expected) in [
            (&["cpu.*"][..], &["cpu.core.usage", "cpu.core.usage", "cpu.usage"][..]),
            (&["cpu.usage"], &["cpu.usage"]),
            (&["cpu"], &[]),
            (&["cpu.core.usage{1}"], &["cpu.core.usage"]),
            (&["cpu", "cpufreq.x"], &["cpufreq.x"]),
            (&[], &["cpu.core.usage", "cpu.core.usage", "cpu.usage", "cpufreq.x"]),
        ] {
            let selected = selections.get(names(patterns), false).project(&shape);
            let metric = |index: &usize| shape.columns()[*index].metric.to_string();
            let mut metrics: Vec<String> = selected.indices.iter().map(metric).collect();
            metrics.sort_unstable();
            assert_eq!(metrics, expected, "{patterns:?}");
        }
    }
}

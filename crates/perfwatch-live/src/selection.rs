//! What a client asked to see. Equal wishes are one selection, so that what is encoded for
//! one is there for all.

use perfwatch_model::{Shape, ShapeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The columns of one shape that a selection takes.
#[derive(Debug)]
pub struct SelectedColumns {
    pub indices: Vec<usize>,
    /// `[{"metric": …, "instance": …, "decimals": …}, …]`
    pub columns: String,
}

/// Metrics (with all their instances) and whether processes are wanted.
pub struct Selection {
    pub id: u64,
    metrics: Vec<String>,
    pub processes: bool,
    projections: Mutex<HashMap<ShapeId, Arc<SelectedColumns>>>,
}

impl Selection {
    /// The columns to take of this shape; worked out once.
    pub fn project(&self, shape: &Shape) -> Arc<SelectedColumns> {
        let mut picked = self.projections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = picked.get(&shape.id()) {
            return known.clone();
        }
        if picked.len() > 1_000 {
            picked.clear();
        }
        let wanted = |metric: &str| {
            self.metrics.is_empty() || self.metrics.iter().any(|pattern| fits(pattern, metric))
        };
        let columns = shape.columns();
        let indices: Vec<usize> =
            (0..columns.len()).filter(|&index| wanted(&columns[index].metric)).collect();
        let described: Vec<serde_json::Value> = indices
            .iter()
            .map(|&index| {
                let column = &columns[index];
                serde_json::json!({ "metric": column.metric, "instance": column.instance, "decimals": column.decimals })
            })
            .collect();
        let new =
            Arc::new(SelectedColumns { indices, columns: serde_json::Value::Array(described).to_string() });
        picked.insert(shape.id(), new.clone());
        new
    }
}

/// A metric's name, or a group with `.*` at its end.
fn fits(pattern: &str, metric: &str) -> bool {
    match pattern.strip_suffix(".*") {
        Some(group) => metric.strip_prefix(group).is_some_and(|rest| rest.starts_with('.')),
        None => pattern == metric,
    }
}

type SelectionKey = (Vec<String>, bool);

/// All selections in use.
#[derive(Default)]
pub struct Selections {
    by_key: Mutex<HashMap<SelectionKey, Weak<Selection>>>,
    next: AtomicU64,
}

impl Selections {
    /// The selection of these metrics; an empty list means all.
    pub fn get(&self, mut metrics: Vec<String>, processes: bool) -> Arc<Selection> {
        metrics.sort_unstable();
        metrics.dedup();
        let mut known = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let wish = (metrics, processes);
        if let Some(selection) = known.get(&wish).and_then(Weak::upgrade) {
            return selection;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let selection =
            Arc::new(Selection { id, metrics: wish.0.clone(), processes, projections: Mutex::default() });
        known.insert(wish, Arc::downgrade(&selection));
        selection
    }

    /// Forgets those that nobody holds any more.
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

    #[test]
    fn equal_selections_are_shared_and_pruned() {
        let selections = Selections::default();
        let list = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let one = selections.get(list(&["b", "a", "a"]), true);
        assert!(Arc::ptr_eq(&one, &selections.get(list(&["a", "b"]), true)));
        assert_ne!(one.id, selections.get(list(&["a", "b"]), false).id);
        selections.prune();
        assert_eq!(selections.by_key.lock().unwrap().len(), 1);
    }

    #[test]
    fn metric_groups_match() {
        for (pattern, metric, expected) in [
            ("cpu.*", "cpu.usage", true),
            ("cpu.*", "cpufreq.x", false),
            ("cpu.usage", "cpu.usage", true),
            ("cpu", "cpu.usage", false),
        ] {
            assert_eq!(fits(pattern, metric), expected);
        }
    }
}

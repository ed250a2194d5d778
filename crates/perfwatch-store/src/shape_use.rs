//! Shapes that the head of this hub uses, and shapes that may be unused; the same for both engines.
//!
//! The table `head_shape` is the durable copy. A shape that neither a block nor a head row of any hub names is
//! deleted as soon as its last use ends.

use perfwatch_model::ShapeId;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Interval of the search for unused shapes that a crash left behind.
const SWEEP_INTERVAL: Duration = Duration::from_secs(6 * 3_600);

/// Deletes a shape that nothing uses.
pub(crate) const DELETE_UNUSED_SQL: &str = "DELETE FROM shape WHERE id = $1 \
     AND NOT EXISTS (SELECT 1 FROM head_shape h WHERE h.shape = shape.id) \
     AND NOT EXISTS (SELECT 1 FROM block_raw b WHERE b.shape = shape.id) \
     AND NOT EXISTS (SELECT 1 FROM block_minute b WHERE b.shape = shape.id) \
     AND NOT EXISTS (SELECT 1 FROM block_hour b WHERE b.shape = shape.id)";
/// Lists all shapes that nothing uses.
pub(crate) const LIST_UNUSED_SQL: &str = "SELECT id FROM shape WHERE id NOT IN (SELECT shape FROM head_shape) \
     AND id NOT IN (SELECT shape FROM block_raw) AND id NOT IN (SELECT shape FROM block_minute) \
     AND id NOT IN (SELECT shape FROM block_hour)";

#[derive(Default)]
pub(crate) struct ShapeUse(Mutex<ShapeUseInner>);

#[derive(Default)]
struct ShapeUseInner {
    /// Shapes in `head_shape`, with the newest commit that uses them.
    head: HashMap<ShapeId, i64>,
    /// Shapes whose last known use ended.
    candidates: HashSet<ShapeId>,
    swept_at: Option<Duration>,
}

impl ShapeUse {
    fn lock(&self) -> MutexGuard<'_, ShapeUseInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether `head_shape` contains the shape.
    pub(crate) fn is_in_head(&self, id: ShapeId) -> bool {
        self.lock().head.contains_key(&id)
    }

    /// Records the shapes of a commit.
    pub(crate) fn record_append(&self, ids: impl IntoIterator<Item = ShapeId>, arrival: i64) {
        let mut inner = self.lock();
        for id in ids {
            let newest = inner.head.entry(id).or_insert(arrival);
            *newest = arrival.max(*newest);
        }
    }

    /// Shapes of deleted head rows, all of whose commits are before an arrival number.
    pub(crate) fn unused_in_head(&self, before: i64) -> Vec<ShapeId> {
        self.lock().head.iter().filter(|(_, newest)| **newest < before).map(|(id, _)| *id).collect()
    }

    /// Records that `head_shape` no longer contains these shapes.
    pub(crate) fn release(&self, ids: &[ShapeId]) {
        let mut inner = self.lock();
        for id in ids {
            inner.head.remove(id);
            inner.candidates.insert(*id);
        }
    }

    /// Records that a block of the shape was deleted.
    pub(crate) fn record_dropped_block(&self, id: ShapeId) {
        self.lock().candidates.insert(id);
    }

    /// Takes the shapes whose last known use ended.
    pub(crate) fn take_candidates(&self) -> Vec<ShapeId> {
        std::mem::take(&mut self.lock().candidates).into_iter().collect()
    }

    /// Returns the shapes after a failed deletion.
    pub(crate) fn restore_candidates(&self, ids: &[ShapeId]) {
        self.lock().candidates.extend(ids);
    }

    /// Returns whether all shapes should be searched, at the start and at intervals.
    pub(crate) fn is_sweep_due(&self, now: Duration) -> bool {
        let mut inner = self.lock();
        let is_due = inner.swept_at.is_none_or(|at| now.saturating_sub(at) >= SWEEP_INTERVAL);
        if is_due {
            inner.swept_at = Some(now);
        }
        is_due
    }
}

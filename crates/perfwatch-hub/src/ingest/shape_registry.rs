//! The shapes the hub has seen, by the name of their content, shared by all hosts.

use perfwatch_model::{Shape, ShapeId, limits};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

#[derive(Default)]
pub(super) struct ShapeRegistry {
    known: RwLock<HashMap<ShapeId, Arc<Shape>>>,
}

impl ShapeRegistry {
    pub(super) fn get(&self, id: ShapeId) -> Option<Arc<Shape>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Forgets what no snapshot at hand uses; agents send a shape again when asked.
    pub(super) fn prune(&self) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, shape| Arc::strong_count(shape) > 1);
    }

    /// Adds a shape, or gives the equal one that is there.
    pub(super) fn intern(&self, shape: Arc<Shape>) -> Arc<Shape> {
        if let Some(known) = self.get(shape.id()) {
            return known;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= limits::MAX_SHAPES {
            return shape;
        }
        known.entry(shape.id()).or_insert(shape).clone()
    }
}

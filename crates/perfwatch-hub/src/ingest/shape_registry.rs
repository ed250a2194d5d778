//! Shapes by content hash, shared by all hosts.

use perfwatch_model::{Shape, ShapeId, limits};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Registry of shapes.
#[derive(Default)]
pub(super) struct ShapeRegistry {
    shapes: RwLock<HashMap<ShapeId, Arc<Shape>>>,
}

impl ShapeRegistry {
    pub(super) fn get(&self, id: ShapeId) -> Option<Arc<Shape>> {
        self.shapes.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Drops shapes that no snapshot in memory uses; agents send them again on request.
    pub(super) fn prune(&self) {
        let mut shapes = self.shapes.write().unwrap_or_else(PoisonError::into_inner);
        shapes.retain(|_, shape| Arc::strong_count(shape) > 1);
    }

    /// Returns the stored copy of the shape; adds the shape if there is none and the limit is not reached.
    pub(super) fn intern(&self, shape: Arc<Shape>) -> Arc<Shape> {
        if let Some(stored) = self.get(shape.id()) {
            return stored;
        }
        let mut shapes = self.shapes.write().unwrap_or_else(PoisonError::into_inner);
        if shapes.len() >= limits::MAX_SHAPES {
            return shape;
        }
        shapes.entry(shape.id()).or_insert(shape).clone()
    }
}

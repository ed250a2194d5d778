//! Cache of decoded shapes. Each block and each head row refers to one.

use perfwatch_model::{Shape, ShapeId};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Maximum number of cached shapes; a full cache is emptied.
const MAX_CACHED_SHAPES: usize = 20_000;

#[derive(Default)]
pub(crate) struct ShapeCache(RwLock<HashMap<ShapeId, Arc<Shape>>>);

impl ShapeCache {
    pub(crate) fn get(&self, id: ShapeId) -> Option<Arc<Shape>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Adds a shape, or returns the cached equal shape.
    pub(crate) fn insert(&self, shape: Arc<Shape>) -> Arc<Shape> {
        let mut shapes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if shapes.len() >= MAX_CACHED_SHAPES {
            shapes.clear();
        }
        shapes.entry(shape.id()).or_insert(shape).clone()
    }
}

//! Shapes that were read or written lately, decoded: each block and head row names one.

use perfwatch_model::{Shape, ShapeId};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Kept at one time.
const MAX_CACHED_SHAPES: usize = 20_000;

#[derive(Default)]
pub(crate) struct ShapeCache(RwLock<HashMap<ShapeId, Arc<Shape>>>);

impl ShapeCache {
    pub(crate) fn get(&self, id: ShapeId) -> Option<Arc<Shape>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Adds a shape, or gives the equal one that is there.
    pub(crate) fn insert(&self, shape: Arc<Shape>) -> Arc<Shape> {
        let mut shapes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if shapes.len() >= MAX_CACHED_SHAPES {
            shapes.clear();
        }
        shapes.entry(shape.id()).or_insert(shape).clone()
    }
}

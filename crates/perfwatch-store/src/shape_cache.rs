//! Cache of decoded shapes. Each block and each head row refers to one.

use perfwatch_model::{Shape, ShapeId};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Maximum number of columns of all cached shapes, about 100 bytes each; a full cache is emptied.
const MAX_CACHED_COLUMNS: usize = 2 << 20;

#[derive(Default)]
pub(crate) struct ShapeCache(RwLock<CachedShapes>);

#[derive(Default)]
struct CachedShapes {
    shapes: HashMap<ShapeId, Arc<Shape>>,
    columns: usize,
}

impl ShapeCache {
    pub(crate) fn get(&self, id: ShapeId) -> Option<Arc<Shape>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).shapes.get(&id).cloned()
    }

    /// Adds a shape, or returns the cached equal shape.
    pub(crate) fn insert(&self, shape: Arc<Shape>) -> Arc<Shape> {
        let mut cache = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cache.shapes.get(&shape.id()) {
            return cached.clone();
        }
        if cache.columns >= MAX_CACHED_COLUMNS {
            *cache = CachedShapes::default();
        }
        cache.columns += shape.columns().len();
        cache.shapes.insert(shape.id(), shape.clone());
        shape
    }
}

//! Shapes by content hash, shared by all hosts.

use perfwatch_model::{Shape, ShapeId, limits};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Registry of shapes.
#[derive(Default)]
pub(super) struct ShapeRegistry {
    /// By the id that snapshots name: that of the columns as sent, with hidden characters.
    shapes: RwLock<HashMap<ShapeId, Arc<Shape>>>,
}

impl ShapeRegistry {
    pub(super) fn get(&self, id: ShapeId) -> Option<Arc<Shape>> {
        self.shapes.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Drops shapes that no snapshot in memory uses; agents send them again on request.
    pub(super) fn prune(&self) {
        let mut shapes = self.shapes.write().unwrap_or_else(PoisonError::into_inner);
        // A shape with hidden characters is also registered by its own id.
        let mut registered: HashMap<*const Shape, usize> = HashMap::new();
        for shape in shapes.values() {
            *registered.entry(Arc::as_ptr(shape)).or_default() += 1;
        }
        shapes.retain(|_, shape| Arc::strong_count(shape) > registered[&Arc::as_ptr(shape)]);
    }

    /// Returns the stored copy of the shape; adds the shape if there is none and the limit is not reached.
    pub(super) fn intern(&self, id: ShapeId, shape: Arc<Shape>) -> Arc<Shape> {
        if let Some(stored) = self.get(id) {
            return stored;
        }
        let mut shapes = self.shapes.write().unwrap_or_else(PoisonError::into_inner);
        if shapes.len() >= limits::MAX_SHAPES {
            return shape;
        }
        shapes.entry(id).or_insert(shape).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_with_two_ids_is_pruned_when_unused() {
        let registry = ShapeRegistry::default();
        let sent = ShapeId([1; 16]);
        let shape = registry.intern(sent, Arc::new(Shape::new(Vec::new())));
        registry.intern(shape.id(), shape.clone());
        registry.prune();
        assert!(registry.get(sent).is_some() && registry.get(shape.id()).is_some());
        drop(shape);
        registry.prune();
        assert!(registry.get(sent).is_none());
    }
}

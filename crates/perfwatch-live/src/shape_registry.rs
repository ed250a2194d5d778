//! Shapes by content hash, shared by all hosts.

use perfwatch_model::{Shape, ShapeId, limits};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

/// Maximum number of ids of shapes that were sent with hidden characters. Above, such a shape is requested
/// again with each batch.
const MAX_SENT_IDS: usize = 2_048;

/// Registry of shapes.
#[derive(Default)]
pub struct ShapeRegistry(RwLock<ShapeRegistryInner>);

#[derive(Default)]
struct ShapeRegistryInner {
    shapes: HashMap<ShapeId, Arc<Shape>>,
    /// Shapes without hidden characters by the id that snapshots name: that of the columns as sent. Many ids
    /// can name one shape.
    sent: HashMap<ShapeId, Arc<Shape>>,
}

impl ShapeRegistry {
    fn write(&self) -> RwLockWriteGuard<'_, ShapeRegistryInner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shape that snapshots name by this id.
    pub fn get(&self, id: ShapeId) -> Option<Arc<Shape>> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        inner.shapes.get(&id).or_else(|| inner.sent.get(&id)).cloned()
    }

    /// Drops shapes that no snapshot in memory uses; agents send them again on request.
    pub fn prune(&self) {
        let ShapeRegistryInner { shapes, sent } = &mut *self.write();
        let mut registered: HashMap<*const Shape, usize> = HashMap::new();
        for shape in shapes.values().chain(sent.values()) {
            *registered.entry(Arc::as_ptr(shape)).or_default() += 1;
        }
        let is_used = |shape: &Arc<Shape>| Arc::strong_count(shape) > registered[&Arc::as_ptr(shape)];
        sent.retain(|_, shape| is_used(shape));
        shapes.retain(|_, shape| is_used(shape));
    }

    /// Adds a shape if there is none and the limit is not reached.
    pub fn add(&self, shape: &Arc<Shape>) {
        if self.get(shape.id()).is_none() {
            let shapes = &mut self.write().shapes;
            if shapes.len() < limits::MAX_SHAPES {
                shapes.entry(shape.id()).or_insert_with(|| shape.clone());
            }
        }
    }

    /// Adds the id by which a sender names a registered shape.
    pub fn add_sent_id(&self, id: ShapeId, shape: ShapeId) {
        if id != shape && self.get(id).is_none() {
            let ShapeRegistryInner { shapes, sent } = &mut *self.write();
            if let Some(shape) = shapes.get(&shape).filter(|_| sent.len() < MAX_SENT_IDS) {
                sent.insert(id, shape.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_with_several_ids_is_pruned_when_unused() {
        let registry = ShapeRegistry::default();
        let shape = Arc::new(Shape::new(Vec::new()));
        registry.add_sent_id(ShapeId([1; 16]), shape.id());
        assert!(registry.get(ShapeId([1; 16])).is_none(), "the shape is not registered");
        registry.add(&shape);
        for n in 0..=MAX_SENT_IDS {
            let mut id = [1; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            registry.add_sent_id(ShapeId(id), shape.id());
            assert_eq!(registry.get(ShapeId(id)).is_some(), n < MAX_SENT_IDS);
        }
        registry.prune();
        assert!(registry.get(shape.id()).is_some());
        let id = shape.id();
        drop(shape);
        registry.prune();
        assert!(registry.get(id).is_none());
    }
}

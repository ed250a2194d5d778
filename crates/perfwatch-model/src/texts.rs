//! One copy of each text that comes again and again: names and command lines of processes,
//! which every tick repeats.

use crate::limits;
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

/// Texts that are in use somewhere.
#[derive(Debug, Default)]
pub struct Texts {
    known: RwLock<HashSet<Arc<str>>>,
}

impl Texts {
    /// The one copy of a text; past [`limits::TEXTS`] of them, a copy of its own.
    pub fn get(&self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = known.get(text) {
            return other.clone();
        }
        if known.len() < limits::TEXTS {
            known.insert(new.clone());
        }
        new
    }

    /// Forgets what nobody else holds.
    pub fn prune(&self) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|text| Arc::strong_count(text) > 1);
        known.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_until_nobody_holds_them() {
        let texts = Texts::default();
        let (one, two) = (texts.get("nginx"), texts.get("nginx"));
        assert!(Arc::ptr_eq(&one, &two));
        texts.get("gone");
        texts.prune();
        assert_eq!(texts.known.read().unwrap().len(), 1);
        assert!(Arc::ptr_eq(&one, &texts.get("nginx")));
    }
}

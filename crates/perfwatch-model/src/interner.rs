//! One copy of each text that comes again and again: names and command lines of processes,
//! which every tick repeats.

use crate::limits;
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

/// Texts that are in use somewhere.
#[derive(Debug, Default)]
pub struct StringInterner {
    strings: RwLock<HashSet<Arc<str>>>,
}

impl StringInterner {
    /// The one copy of a text; past [`limits::TEXTS`] of them, a copy of its own.
    pub fn intern(&self, text: &str) -> Arc<str> {
        if let Some(known) = self.strings.read().unwrap_or_else(PoisonError::into_inner).get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        let mut known = self.strings.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = known.get(text) {
            return other.clone();
        }
        if known.len() < limits::MAX_INTERNED_STRINGS {
            known.insert(new.clone());
        }
        new
    }

    /// Forgets what nobody else holds.
    pub fn prune(&self) {
        let mut known = self.strings.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|text| Arc::strong_count(text) > 1);
        known.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interner_deduplicates_until_dropped() {
        let texts = StringInterner::default();
        let (one, two) = (texts.intern("nginx"), texts.intern("nginx"));
        assert!(Arc::ptr_eq(&one, &two));
        texts.intern("gone");
        texts.prune();
        assert_eq!(texts.strings.read().unwrap().len(), 1);
        assert!(Arc::ptr_eq(&one, &texts.intern("nginx")));
    }
}

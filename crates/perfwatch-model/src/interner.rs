//! String interner: one shared copy of texts that every tick repeats, such as process names and
//! command lines.

use crate::limits;
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

/// Set of shared strings, safe for concurrent use.
#[derive(Debug, Default)]
pub struct StringInterner {
    strings: RwLock<HashSet<Arc<str>>>,
}

impl StringInterner {
    /// Returns the shared copy of a text. With [`limits::MAX_INTERNED_STRINGS`] texts in the set,
    /// a new text is returned as a separate copy.
    pub fn intern(&self, text: &str) -> Arc<str> {
        if let Some(existing) = self.strings.read().unwrap_or_else(PoisonError::into_inner).get(text) {
            return existing.clone();
        }
        let new: Arc<str> = text.into();
        let mut strings = self.strings.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have inserted the text between the two locks.
        if let Some(existing) = strings.get(text) {
            return existing.clone();
        }
        if strings.len() < limits::MAX_INTERNED_STRINGS {
            strings.insert(new.clone());
        }
        new
    }

    /// Removes the texts that are referenced only by this set.
    pub fn prune(&self) {
        let mut strings = self.strings.write().unwrap_or_else(PoisonError::into_inner);
        strings.retain(|text| Arc::strong_count(text) > 1);
        strings.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interner_deduplicates_until_dropped() {
        let interner = StringInterner::default();
        let (first, second) = (interner.intern("nginx"), interner.intern("nginx"));
        assert!(Arc::ptr_eq(&first, &second));
        interner.intern("dropped");
        interner.prune();
        assert_eq!(interner.strings.read().unwrap().len(), 1);
        assert!(Arc::ptr_eq(&first, &interner.intern("nginx")));
    }
}

//! Bounded set of texts, so that a condition that clients cause is logged once and not per request.

use perfwatch_model::printable::is_hidden;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Maximum number of remembered texts: invented origins must neither fill the log nor the memory.
const MAX_ENTRIES: usize = 200;
/// Maximum length of a remembered text in bytes.
const MAX_TEXT_BYTES: usize = 200;

/// Texts that were seen since the start.
#[derive(Debug, Default)]
pub struct FirstSeen(Mutex<HashSet<String>>);

impl FirstSeen {
    /// Whether the text was not seen before; false for all texts above the limit.
    pub fn is_first(&self, text: &str) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = printable(text);
        seen.len() < MAX_ENTRIES && seen.insert(text)
    }
}

/// Text of a client for a log line or a message: at most 200 bytes, control characters replaced.
pub fn printable(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
    text.chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_seen_once_up_to_the_limit() {
        let seen = FirstSeen::default();
        assert!(seen.is_first("https://evil.example"));
        assert!(!seen.is_first("https://evil.example"));
        let new = (0..2 * MAX_ENTRIES).filter(|number| seen.is_first(&number.to_string())).count();
        assert_eq!(new, MAX_ENTRIES - 1);
        assert_eq!(printable(&"ä\n".repeat(100)).chars().filter(|c| *c == '\u{fffd}').count(), 66);
    }
}

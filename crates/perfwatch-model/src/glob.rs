//! Wildcard patterns for metrics, instances, hosts and mount points.
//!
//! A pattern matches the whole text: `*` matches any number of characters, `?` a single character.
//! There is no escape character. Lists of patterns may contain exclusions (`!eth9`).

use std::collections::HashMap;

/// Maximum length of a pattern: that of a path (`PATH_MAX`). A longer pattern matches no text.
pub const MAX_PATTERN_BYTES: usize = 4_096;

/// Returns whether the whole `text` matches `pattern`.
///
/// Each part between two `*` is searched once, from left to right, and never again. The time is
/// linear in the text, also for a part that contains `?`: its positions are advanced together, as bits.
pub fn matches(pattern: &str, text: &str) -> bool {
    if pattern.len() > MAX_PATTERN_BYTES {
        return false;
    }
    let mut parts = pattern.split('*');
    let Some(mut remaining) = parts.next().and_then(|prefix| strip_prefix(prefix, text)) else {
        return false;
    };
    let Some(suffix) = parts.next_back() else { return remaining.is_empty() };
    for part in parts {
        match strip_through(part, remaining) {
            Some(after) => remaining = after,
            None => return false,
        }
    }
    ends_with(suffix, remaining)
}

/// Returns whether `text` matches a list of patterns such as `eth*`, `!eth9`. Spaces around a
/// pattern and empty patterns are ignored.
///
/// A matching exclusion (`!`) always wins. A list of exclusions only, or an empty list, matches
/// every other text.
pub fn matches_list<'a>(patterns: impl IntoIterator<Item = &'a str>, text: &str) -> bool {
    let (mut has_inclusion, mut included) = (false, false);
    for pattern in patterns.into_iter().map(str::trim).filter(|pattern| !pattern.is_empty()) {
        match pattern.strip_prefix('!') {
            Some(exclusion) if matches(exclusion, text) => return false,
            Some(_) => {}
            None => {
                has_inclusion = true;
                included = included || matches(pattern, text);
            }
        }
    }
    included || !has_inclusion
}

/// Text after a prefix in which `?` matches any character.
fn strip_prefix<'t>(prefix: &str, text: &'t str) -> Option<&'t str> {
    if !prefix.contains('?') {
        return text.strip_prefix(prefix);
    }
    let mut remaining = text.chars();
    prefix.chars().all(|p| remaining.next().is_some_and(|c| p == '?' || p == c)).then_some(remaining.as_str())
}

/// Text after the first occurrence of a part in which `?` matches any character.
fn strip_through<'t>(part: &str, text: &'t str) -> Option<&'t str> {
    if !part.contains('?') {
        return text.find(part).map(|start| &text[start + part.len()..]);
    }
    WildcardSearch::new(part).find_end(text).map(|end| &text[end..])
}

/// Search of a part with `?` (the Shift-And algorithm): bit `i` of the state is set if the last `i + 1`
/// characters of the text match the first `i + 1` of the part. Each character costs one operation per 64
/// characters of the part.
struct WildcardSearch {
    /// Positions at which a character of the part stands, positions of `?` included.
    masks: HashMap<char, Vec<u64>>,
    /// Positions of `?`, which match every other character.
    any: Vec<u64>,
    last: usize,
}

impl WildcardSearch {
    fn new(part: &str) -> Self {
        let chars: Vec<char> = part.chars().collect();
        let mut any = vec![0; chars.len().div_ceil(64)];
        let set = |bits: &mut Vec<u64>, at: usize| bits[at / 64] |= 1 << (at % 64);
        for (at, _) in chars.iter().enumerate().filter(|(_, c)| **c == '?') {
            set(&mut any, at);
        }
        let mut masks: HashMap<char, Vec<u64>> = HashMap::new();
        for (at, c) in chars.iter().enumerate().filter(|(_, c)| **c != '?') {
            set(masks.entry(*c).or_insert_with(|| any.clone()), at);
        }
        Self { masks, any, last: chars.len().saturating_sub(1) }
    }

    /// Byte offset of the end of the first match.
    fn find_end(&self, text: &str) -> Option<usize> {
        let mut state = vec![0_u64; self.any.len()];
        for (start, c) in text.char_indices() {
            let mask = self.masks.get(&c).unwrap_or(&self.any);
            // A match may start at each character.
            let mut carry = 1;
            for (bits, mask) in state.iter_mut().zip(mask) {
                let next_carry = *bits >> 63;
                *bits = ((*bits << 1) | carry) & mask;
                carry = next_carry;
            }
            if state[self.last / 64] >> (self.last % 64) & 1 == 1 {
                return Some(start + c.len_utf8());
            }
        }
        None
    }
}

fn ends_with(suffix: &str, text: &str) -> bool {
    let mut reversed = text.chars().rev();
    suffix.chars().rev().all(|p| reversed.next().is_some_and(|c| p == '?' || p == c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_whole_text() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("lo", "lo", true),
            ("lo", "lo0", false),
            ("*", "", true),
            ("*", "any text", true),
            ("veth*", "veth12", true),
            ("veth*", "eth0", false),
            ("a*a", "a", false),
            ("*a*b", "xxaxxb", true),
            ("*a*b", "xxbxxa", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("*ab*", "aab", true),
            ("*é", "é", true),
            ("?", "é", true),
            ("?", "", false),
            ("?", "ab", false),
            ("web-?", "web-1", true),
            ("web-?", "web-12", false),
            ("*?b?*", "aabc", true),
            ("*?b?*", "aab", false),
            ("?*?", "a", false),
            ("**a**", "bab", true),
            ("cpu.*", "cpu.", true),
            ("cpu.*", "cpu", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn exclusions_win_over_inclusions() {
        for (list, text, expected) in [
            ("", "eth0", true),
            ("eth0", "eth0", true),
            ("/data*, /srv", "/srv", true),
            ("/data*, /srv", "/home", false),
            ("!lo,!veth*", "eth0", true),
            ("!lo,!veth*", "veth12", false),
            ("*,!lo", "lo", false),
            ("!eth9, eth*", "eth9", false),
            ("!eth9,,eth*", "eth1", true),
            ("!eth9,eth*", "lo", false),
        ] {
            assert_eq!(matches_list(list.split(','), text), expected, "{list:?} on {text:?}");
        }
    }

    /// Finding H2: patterns that backtrack in a recursive matcher. The work is counted, not timed: a part
    /// with `?` costs one word per 64 of its characters for each character of the text.
    #[test]
    fn hostile_patterns_take_linear_work_without_recursion() {
        let text = "a".repeat(256 << 10);
        let patterns = [
            "*a".repeat(2_000) + "*b",
            "*".repeat(4_096),
            format!("*{}b*", "?".repeat(4_090)),
            format!("*{}b*", "a?".repeat(2_000)),
            "?*".repeat(2_000) + "b",
            format!("{}b", "a*".repeat(2_000)),
        ];
        let run = move || {
            for pattern in &patterns {
                assert_eq!(matches(pattern, &text), pattern.chars().all(|c| c == '*'), "{}", &pattern[..9]);
            }
            assert!(!matches(&"*".repeat(MAX_PATTERN_BYTES + 1), "a"));
            let search = WildcardSearch::new(&"a?".repeat(2_000));
            assert_eq!((search.any.len(), search.masks.len()), (4_000_usize.div_ceil(64), 1));
        };
        std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap().join().unwrap();
    }

    fn matches_naively(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', remaining)) => {
                (0..=text.len()).any(|skipped| matches_naively(remaining, &text[skipped..]))
            }
            Some((expected, remaining)) => text.split_first().is_some_and(|(c, text)| {
                (*expected == '?' || expected == c) && matches_naively(remaining, text)
            }),
        }
    }

    proptest! {
        #[test]
        fn equals_the_naive_matcher(pattern in "[ab*?é]{0,12}", text in "[abé]{0,12}") {
            let [pattern_chars, text_chars] = [&pattern, &text].map(|s| s.chars().collect::<Vec<_>>());
            prop_assert_eq!(matches(&pattern, &text), matches_naively(&pattern_chars, &text_chars));
        }
    }
}

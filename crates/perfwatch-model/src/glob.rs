//! Wildcard patterns for metrics, instances, hosts and mount points.
//!
//! A pattern matches the whole text: `*` matches any number of characters, `?` a single character.
//! There is no escape character. Lists of patterns may contain exclusions (`!eth9`).

/// Returns whether the whole `text` matches `pattern`.
///
/// Each part between two `*` is searched once, from left to right, and never again. The time is
/// linear in the text; a part that contains `?` costs at most its own length per character.
pub fn matches(pattern: &str, text: &str) -> bool {
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
    text.char_indices().find_map(|(start, _)| strip_prefix(part, &text[start..]))
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

    #[test]
    fn long_hostile_patterns_are_fast() {
        let (pattern, text) = ("*a".repeat(2_000) + "*b", "a".repeat(20_000));
        assert!(!matches(&pattern, &text));
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
        fn equals_the_naive_matcher(pattern in "[ab*?é]{0,8}", text in "[abé]{0,10}") {
            let [pattern_chars, text_chars] = [&pattern, &text].map(|s| s.chars().collect::<Vec<_>>());
            prop_assert_eq!(matches(&pattern, &text), matches_naively(&pattern_chars, &text_chars));
        }
    }
}

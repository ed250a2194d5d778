//! Metric B1: British spellings, and their replacement.

use super::measure::{Finding, Measure, Unit};
use crate::source::{TextFile, Workspace};
use std::collections::BTreeMap;
use std::path::Path;

/// British stem and its American form, longest stems first; from the configuration file, so that
/// no British stem is part of a source.
#[derive(Debug)]
pub(crate) struct Spelling(Vec<(String, String)>);

struct Hit<'a> {
    offset: usize,
    stem: &'a str,
    american: &'a str,
}

impl Spelling {
    /// Spelling table from British stems and American forms in lower case.
    pub(crate) fn new(table: &BTreeMap<String, String>) -> Self {
        let mut stems: Vec<_> =
            table.iter().map(|(british, american)| (british.clone(), american.clone())).collect();
        stems.sort_by_key(|(british, _)| std::cmp::Reverse(british.len()));
        Self(stems)
    }

    /// Stems of a text, ordered by offset and without overlaps. A stem whose American form
    /// continues it by one letter is skipped if the text has that letter already.
    fn hits(&self, lower: &str) -> Vec<Hit<'_>> {
        let mut hits: BTreeMap<usize, Hit<'_>> = BTreeMap::new();
        for (stem, american) in &self.0 {
            for (offset, _) in lower.match_indices(stem.as_str()) {
                let added = american.strip_prefix(stem.as_str()).unwrap_or_default();
                let is_american = !added.is_empty() && lower[offset + stem.len()..].starts_with(added);
                if !is_american {
                    hits.entry(offset).or_insert(Hit { offset, stem, american });
                }
            }
        }
        let mut end = 0;
        let mut ordered: Vec<_> = hits.into_values().collect();
        ordered.retain(|hit| {
            let is_free = hit.offset >= end;
            end = end.max(hit.offset + hit.stem.len());
            is_free
        });
        ordered
    }

    /// Places of the British words of a text.
    fn places(&self, path: &str, text: &str) -> Vec<Finding> {
        let lower = text.to_ascii_lowercase();
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let mut end = 0;
        let mut places = Vec::new();
        for hit in self.hits(&lower) {
            if hit.offset < end {
                continue;
            }
            let start = text[..hit.offset].rfind(|letter| !is_word(letter)).map_or(0, |at| at + 1);
            let start = (start..=hit.offset).find(|at| text.is_char_boundary(*at)).unwrap_or(hit.offset);
            end = text[hit.offset..].find(|letter| !is_word(letter)).map_or(text.len(), |at| hit.offset + at);
            let line = 1 + text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
            places.push(Finding::new(path, line, &text[start..end]));
        }
        places
    }

    /// Text with American forms; the case of the first letter or of the whole stem stays.
    pub(crate) fn replace(&self, text: &str) -> String {
        let lower = text.to_ascii_lowercase();
        let mut result = String::with_capacity(text.len());
        let mut from = 0;
        for hit in self.hits(&lower) {
            result.push_str(&text[from..hit.offset]);
            from = hit.offset + hit.stem.len();
            let original = &text[hit.offset..from];
            if original.chars().all(char::is_uppercase) {
                result.push_str(&hit.american.to_ascii_uppercase());
            } else {
                let same = original.chars().next().unwrap_or_default();
                result.push(same);
                result.push_str(hit.american.get(1..).unwrap_or_default());
            }
        }
        result.push_str(&text[from..]);
        result
    }

    /// Measures B1 over Rust, web, and documentation.
    pub(crate) fn measure(&self, workspace: &Workspace) -> Measure {
        let rust = workspace.rust.iter().map(|file| (&file.path, &file.text));
        let others =
            workspace.web.iter().chain(&workspace.docs).map(|file: &TextFile| (&file.path, &file.text));
        let places = rust.chain(others).flat_map(|(path, text)| self.places(path, text));
        Measure::new("B1", Unit::Count, places.collect())
    }

    /// Rewrites every file of B1 that changes; returns their paths.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    pub(crate) fn fix(&self, root: &Path, workspace: &Workspace) -> Result<Vec<String>, String> {
        let rust = workspace.rust.iter().map(|file| (&file.path, &file.text));
        let others = workspace.web.iter().chain(&workspace.docs).map(|file| (&file.path, &file.text));
        let mut changed = Vec::new();
        for (path, text) in rust.chain(others) {
            let replaced = self.replace(text);
            if replaced != *text {
                std::fs::write(root.join(path), replaced).map_err(|error| format!("{path}: {error}"))?;
                changed.push(path.clone());
            }
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table of the configuration file.
    fn spelling() -> Spelling {
        Spelling::new(&crate::config::VocabularyConfig::load(&crate::root()).unwrap().spelling)
    }

    /// Test inputs join their parts at `|`, so that this source has no British spelling.
    fn british(text: &str) -> String {
        text.replace('|', "")
    }

    #[test]
    fn british_words_are_counted_by_word() {
        let text = british(
            "Colo|ur of behavio|urs\nEn|rolment, enrolled, enroller; re_seria|lise_it colo|ur_colo|ur",
        );
        let places = spelling().places("x", &text);
        let lines: Vec<_> = places.iter().map(|place| place.line).collect();
        assert_eq!(lines, [1, 1, 2, 2, 2]);
        assert_eq!(places[3].text, british("re_seria|lise_it"));
    }

    #[test]
    fn british_words_are_replaced_with_their_case() {
        let text = british(
            "Colo|ur COLO|UR en|rolment en|rols enrolled cent|red is_initia|lised acknowledge|ment café",
        );
        let expected = "Color COLOR enrollment enrolls enrolled centered is_initialized acknowledgment café";
        assert_eq!(spelling().replace(&text), expected);
        assert!(spelling().places("x", expected).is_empty());
    }
}

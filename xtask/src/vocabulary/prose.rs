//! Prose metrics of Rust comments: V1 to V8 and D1 to D5.

use super::measure::{Finding, Measure, Unit};
use super::text::{
    Block, PhraseSet, Word, WordSet, blocks, clean, first_word, is_listed, phrase_set, sentences, word_set,
    words,
};
use crate::lexer::TokenKind;
use crate::source::Workspace;
use std::collections::BTreeMap;

/// Words of V1: speech and posture.
static SPEECH: WordSet = WordSet::new(|| {
    word_set(
        "say says said saying tell tells told telling hear hears heard hearing stand stands stood standing",
    )
});
/// Words of V2: the visual verb, allowed before the word of `EXEMPT_PARTICLE`.
static VISUAL: WordSet = WordSet::new(|| word_set("look looks looked looking"));
const EXEMPT_PARTICLE: &str = "up";
/// Words of V5: indefinite persons.
static PERSONS: WordSet =
    WordSet::new(|| word_set("nobody somebody everybody anybody someone everyone anyone whoever whom noone"));
/// Words of V7: archaic adverbs.
static ARCHAIC: WordSet =
    WordSet::new(|| word_set("meanwhile anew thereby therein thereof wherefore hitherto"));
/// Phrases of V7: archaic adverbs of several words.
static ARCHAIC_PHRASES: PhraseSet = PhraseSet::new(|| {
    phrase_set(
        "once more, for ever, so long, for want of, in the books, by itself, of its own, of our own, as it were",
    )
});
/// Words of V8: figures of speech.
static FIGURATIVE: WordSet = WordSet::new(|| word_set("rests resting calm wakes woken hurry beat beats"));
/// Phrases of V4: pronouns without an antecedent; `*` matches any word.
static PRONOUN_PHRASES: PhraseSet = PhraseSet::new(|| {
    phrase_set(
        "one that, one of, ones, of one, a * one, an * one, new one, other one, another one, this one, \
        that one, each one, the one, one which, one is, one may, one has, one can",
    )
});
const QUESTION_WORDS: &str = "what who whom whose those where how whether when why which";
const FUNCTION_WORDS: &str = "\
    that these this for from of by with without in on at as if until since before after \
    once only so not none nothing";
/// Words of a sentence above which D5 counts it.
const MAX_SENTENCE_WORDS: usize = 40;
/// Words of a doc block up to which D1 and D4 count it.
const SHORT_DOC_WORDS: usize = 3;
/// Occurrences of a short doc block from which D4 counts it.
const REPEATED_DOC_BLOCKS: usize = 3;

/// Places of the words of V1, V2, V5, and V7 in a cleaned text, for headings and UI strings.
pub(crate) fn has_dialect(text: &str) -> bool {
    let cleaned = clean(text);
    let words = words(&cleaned);
    !word_hits(&words, &SPEECH).is_empty()
        || !visual_hits(&words).is_empty()
        || !word_hits(&words, &PERSONS).is_empty()
        || !word_hits(&words, &ARCHAIC).is_empty()
        || !phrase_hits(&words, &ARCHAIC_PHRASES).is_empty()
}

fn word_hits(words: &[Word<'_>], list: &WordSet) -> Vec<usize> {
    words.iter().filter(|(_, word)| list.contains(word)).map(|(offset, _)| *offset).collect()
}

fn visual_hits(words: &[Word<'_>]) -> Vec<usize> {
    let is_exempt = |index: usize| words.get(index + 1).is_some_and(|(_, next)| *next == EXEMPT_PARTICLE);
    let verbs = words.iter().enumerate().filter(|(_, (_, word))| VISUAL.contains(word));
    verbs.filter(|(index, _)| !is_exempt(*index)).map(|(_, (offset, _))| *offset).collect()
}

/// Offsets at which a phrase matches, once for each phrase.
fn phrase_hits(words: &[Word<'_>], phrases: &PhraseSet) -> Vec<usize> {
    let mut hits = Vec::new();
    for (index, (offset, word)) in words.iter().enumerate() {
        let matches = |phrase: &&Vec<&str>| {
            let mut parts = phrase.iter().zip(index + 1..);
            parts.all(|(part, at)| words.get(at).is_some_and(|(_, word)| *part == "*" || part == word))
        };
        let continuations = phrases.get(word).map(Vec::as_slice).unwrap_or_default();
        hits.extend(continuations.iter().filter(matches).map(|_| *offset));
    }
    hits
}

/// V3: `lets` and at most one other word before a direction.
fn permission_hits(words: &[Word<'_>]) -> Vec<usize> {
    let is_direction = |index: usize| {
        words.get(index).is_some_and(|(_, word)| matches!(*word, "in" | "go" | "out" | "through"))
    };
    let verbs = words.iter().enumerate().filter(|(_, (_, word))| *word == "let" || *word == "lets");
    let hits = verbs.filter(|(index, _)| is_direction(index + 1) || is_direction(index + 2));
    hits.map(|(_, (offset, _))| *offset).collect()
}

/// V6: `who` at the start or after punctuation, and followed by another word.
fn relative_hits(cleaned: &str, words: &[Word<'_>]) -> Vec<usize> {
    let follows_punctuation = |offset: usize| {
        cleaned[..offset].trim_end().chars().next_back().is_none_or(|before| ".;:,".contains(before))
    };
    let is_followed = |index: usize, offset: usize| {
        words
            .get(index + 1)
            .is_some_and(|(next, _)| cleaned[offset + 3..*next].chars().all(char::is_whitespace))
    };
    let hits = words.iter().enumerate().filter(|(index, (offset, word))| {
        *word == "who" && follows_punctuation(*offset) && is_followed(*index, *offset)
    });
    hits.map(|(_, (offset, _))| *offset).collect()
}

fn archaic_hits(words: &[Word<'_>]) -> Vec<usize> {
    let mut hits = word_hits(words, &ARCHAIC);
    hits.extend(phrase_hits(words, &ARCHAIC_PHRASES));
    hits
}

/// Finding of an offset of the cleaned block, with the original line.
fn place(file: &str, block: &Block, cleaned: &str, offset: usize) -> Finding {
    let index = cleaned[..offset].matches('\n').count();
    Finding::new(file, block.line + index, block.text.lines().nth(index).unwrap_or_default())
}

/// Measures V1 to V8 over all comments, in occurrences per 1,000 words.
pub(crate) fn measure_words(workspace: &Workspace) -> Vec<Measure> {
    let mut places: [Vec<Finding>; 8] = Default::default();
    let mut total = 0;
    for file in &workspace.rust {
        for block in blocks(file) {
            let cleaned = clean(&block.text);
            let words = words(&cleaned);
            total += words.len();
            let hits = [
                word_hits(&words, &SPEECH),
                visual_hits(&words),
                permission_hits(&words),
                phrase_hits(&words, &PRONOUN_PHRASES),
                word_hits(&words, &PERSONS),
                relative_hits(&cleaned, &words),
                archaic_hits(&words),
                word_hits(&words, &FIGURATIVE),
            ];
            for (places, hits) in places.iter_mut().zip(hits) {
                places.extend(hits.into_iter().map(|offset| place(&file.path, &block, &cleaned, offset)));
            }
        }
    }
    let ids = ["V1", "V2", "V3", "V4", "V5", "V6", "V7", "V8"];
    ids.into_iter()
        .zip(places)
        .map(|(id, places)| Measure::new(id, Unit::PerThousand(total), places))
        .collect()
}

/// Text of a doc block before its `# Errors` or `# Panics` section.
fn summary(block: &Block) -> &str {
    let end = ["# Errors", "# Panics"].iter().filter_map(|title| block.text.find(title)).min();
    block.text[..end.unwrap_or(block.text.len())].trim()
}

/// Measures D1 to D5 over the doc blocks.
pub(crate) fn measure_docs(workspace: &Workspace) -> Vec<Measure> {
    let mut total = 0;
    let mut places: [Vec<Finding>; 5] = Default::default();
    let mut short: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
    for file in &workspace.rust {
        for block in blocks(file).into_iter().filter(|block| block.kind == TokenKind::Doc) {
            total += 1;
            let text = summary(&block);
            let here = Finding::new(&file.path, block.line, text);
            if text.split_whitespace().count() <= SHORT_DOC_WORDS {
                places[0].push(here.clone());
                short.entry(text.to_owned()).or_default().push(here.clone());
            }
            let first = first_word(text);
            let is_question = is_listed(QUESTION_WORDS, &first);
            if is_question {
                places[1].push(here.clone());
            }
            if is_question || is_listed(FUNCTION_WORDS, &first) {
                places[2].push(here.clone());
            }
            let long = sentences(&clean(&block.text))
                .into_iter()
                .filter(|sentence| sentence.split_whitespace().count() > MAX_SENTENCE_WORDS);
            places[4].extend(long.map(|sentence| Finding::new(&file.path, block.line, &sentence)));
        }
    }
    places[3] = short.into_values().filter(|places| places.len() >= REPEATED_DOC_BLOCKS).flatten().collect();
    let [d1, d2, d3, d4, d5] = places;
    vec![
        Measure::new("D1", Unit::Percent(total), d1),
        Measure::new("D2", Unit::Percent(total), d2),
        Measure::new("D3", Unit::Percent(total), d3),
        Measure::new("D4", Unit::Count, d4),
        Measure::new("D5", Unit::Count, d5),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::RustFile;

    fn workspace(text: &str) -> Workspace {
        Workspace { rust: vec![RustFile::new("x.rs", text.to_owned())], ..Workspace::default() }
    }

    fn counts(measures: &[Measure]) -> Vec<usize> {
        measures.iter().map(|measure| measure.places.len()).collect()
    }

    #[test]
    fn word_metrics_count_each_occurrence_once() {
        let text = "// It says `told` what it heard; looks up a name, looks on.\n\
            // It lets agents in and lets go.\n\
            \n// A small one, the other one, one that is so\n// long, whom it\n// meanwhile beats.\n\
            \n/// Who asks, who sends; the who. Who\nfn x() { let who = \"tell me\"; }\n";
        let measures = measure_words(&workspace(text));
        assert_eq!(counts(&measures), [2, 1, 2, 3, 1, 2, 2, 1]);
        assert_eq!(measures[0].places[0].text, "It says `told` what it heard; looks up a name, looks on.");
        assert_eq!(measures[6].places[1].line, 4);
        assert_eq!(measures[0].unit, Unit::PerThousand(17 + 16 + 7));
    }

    #[test]
    fn doc_metrics_classify_blocks_by_length_and_first_word() {
        let short = "/// Whose.\nx\n".repeat(3);
        let long = format!("/// {}end.\nx\n", "word ".repeat(40));
        let text = format!(
            "{short}{long}/// For `ever` and a day.\nx\n/// Noun of it.\n///\n/// # Errors\n\
                /// Never ever.\nx\n// What\n"
        );
        let measures = measure_docs(&workspace(&text));
        assert_eq!(counts(&measures), [4, 3, 4, 3, 1]);
        assert_eq!(measures[0].unit, Unit::Percent(6));
    }

    #[test]
    fn dialect_is_found_outside_code_only() {
        assert!(has_dialect("What it says"));
        assert!(has_dialect("Retry once more"));
        assert!(!has_dialect("Parameter `says`, looked up"));
    }
}

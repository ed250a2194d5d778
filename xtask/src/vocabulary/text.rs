//! Words, sentences, and comment blocks: the units that the prose metrics count.

use crate::lexer::{Token, TokenKind};
use crate::source::RustFile;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

/// Comment block: consecutive comment lines of the same kind, without their markers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Kind of the comment lines.
    pub(crate) kind: TokenKind,
    /// One-based line of the first line.
    pub(crate) line: usize,
    /// Lines joined by newlines.
    pub(crate) text: String,
}

/// Comment blocks of a source. Trailing comments are blocks of their own.
pub(crate) fn blocks(file: &RustFile) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut previous: Option<Token> = None;
    for token in &file.tokens {
        if !matches!(token.kind, TokenKind::Doc | TokenKind::InnerDoc | TokenKind::Comment) {
            continue;
        }
        let raw = &file.text[token.start..token.end];
        let text = raw.trim_start_matches(['/', '!', '*']).trim_end_matches(['/', '*']).trim();
        let continues = previous.is_some_and(|before| {
            before.kind == token.kind
                && before.line + 1 == token.line
                && before.first_on_line
                && token.first_on_line
                && !raw.starts_with("/*")
        });
        match blocks.last_mut() {
            Some(block) if continues => {
                block.text.push('\n');
                block.text.push_str(text);
            }
            _ => blocks.push(Block { kind: token.kind, line: token.line, text: text.to_owned() }),
        }
        previous = Some(*token);
    }
    blocks
}

/// Text without code in backticks, URLs, and link targets; letters in lower case. Lines stay.
pub(crate) fn clean(text: &str) -> String {
    let text = remove_code(text);
    let text = replace_links(&text);
    remove_urls(&text).to_ascii_lowercase()
}

fn remove_code(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('`') {
        let ticks = rest[open..].bytes().take_while(|byte| *byte == b'`').count();
        let after = &rest[open + ticks..];
        let Some(close) = after.find(&rest[open..open + ticks]) else { break };
        result.push_str(&rest[..open]);
        result.extend(after[..close].chars().filter(|letter| *letter == '\n'));
        rest = &after[close + ticks..];
    }
    result.push_str(rest);
    result
}

fn replace_links(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(middle) = rest.find("](") {
        let Some(close) = rest[middle..].find(')') else { break };
        let before = &rest[..middle];
        let open = before.rfind('[').unwrap_or(middle);
        result.push_str(&before[..open]);
        result.push_str(before.get(open + 1..).unwrap_or_default());
        rest = &rest[middle + close + 1..];
    }
    result.push_str(rest);
    result
}

fn remove_urls(text: &str) -> String {
    if !text.contains("://") {
        return text.to_owned();
    }
    let parts = text.split_inclusive(char::is_whitespace);
    let without_url = |part: &str| {
        if part.contains("://") { part.matches(char::is_whitespace).collect() } else { part.to_owned() }
    };
    parts.map(without_url).collect()
}

/// Word of a cleaned text with its byte offset.
pub(crate) type Word<'a> = (usize, &'a str);

/// Words of a cleaned text: letters, optionally with an apostrophe and more letters.
pub(crate) fn words(cleaned: &str) -> Vec<Word<'_>> {
    let bytes = cleaned.as_bytes();
    let mut words = Vec::new();
    let letters = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    let mut at = 0;
    while at < bytes.len() {
        let length = letters(at);
        if length == 0 {
            at += 1;
            continue;
        }
        let mut end = at + length;
        if bytes.get(end) == Some(&b'\'') {
            let more = letters(end + 1);
            end += if more > 0 { more + 1 } else { 0 };
        }
        words.push((at, &cleaned[at..end]));
        at = end;
    }
    words
}

/// Set of words, built at first use.
pub(crate) type WordSet = LazyLock<HashSet<&'static str>>;
/// Phrases: for each first word, the words that may follow.
pub(crate) type PhraseSet = LazyLock<HashMap<&'static str, Vec<Vec<&'static str>>>>;

/// Set of the words of a list separated by spaces.
pub(crate) fn word_set(list: &'static str) -> HashSet<&'static str> {
    list.split_ascii_whitespace().collect()
}

/// Set of the phrases of a list separated by commas.
pub(crate) fn phrase_set(list: &'static str) -> HashMap<&'static str, Vec<Vec<&'static str>>> {
    let mut phrases: HashMap<_, Vec<_>> = HashMap::new();
    for phrase in list.split(',') {
        let mut words = phrase.split_ascii_whitespace();
        if let Some(first) = words.next() {
            phrases.entry(first).or_default().push(words.collect());
        }
    }
    phrases
}

/// True if a list separated by spaces contains the word. Linear; for few words.
pub(crate) fn is_listed(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|listed| listed == word)
}

/// First word in lower case; empty if the text starts with code or a symbol.
pub(crate) fn first_word(text: &str) -> String {
    let word: String = text.trim_start().chars().take_while(|letter| letter.is_alphabetic()).collect();
    word.to_lowercase()
}

/// Sentences: a text split after `.`, `!`, or `?` before whitespace, and before list items.
pub(crate) fn sentences(text: &str) -> Vec<String> {
    let mut sentences = vec![String::new()];
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['-', '*', '|', '#']) {
            sentences.push(String::new());
        }
        for word in line.split_whitespace() {
            if let Some(sentence) = sentences.last_mut() {
                sentence.push_str(word);
                sentence.push(' ');
            }
            if word.ends_with(['.', '!', '?']) {
                sentences.push(String::new());
            }
        }
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_join_consecutive_lines_of_one_kind() {
        let text = "//! a\n//! b\n/// c\n\n/// d\nfn x() {} // e\n// f\n// g\n/* h */\n";
        let file = RustFile::new("x.rs", text.to_owned());
        let found: Vec<_> = blocks(&file).into_iter().map(|block| (block.line, block.text)).collect();
        let expected = [(1, "a\nb"), (3, "c"), (5, "d"), (6, "e"), (7, "f\ng"), (9, "h")];
        assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
    }

    #[test]
    fn cleaned_text_has_no_code_links_or_urls() {
        let text = "Uses `tell()` of ``a ` b`` [the Page](x/y.md) at https://x.org/say now";
        assert_eq!(clean(text), "uses  of  the page at  now");
        let cleaned = clean("It's a b2b x_y 'q' don't");
        let found: Vec<_> = words(&cleaned).into_iter().map(|(_, word)| word).collect();
        assert_eq!(found, ["it's", "a", "b", "b", "x", "y", "q", "don't"]);
    }

    #[test]
    fn sentences_end_at_punctuation_before_whitespace() {
        let found = sentences("One 1.5 two. Three\nfour!\n- five\n- six");
        assert_eq!(found, ["One 1.5 two. ", "Three four! ", "- five ", "- six "]);
    }

    #[test]
    fn first_word_is_empty_before_code() {
        assert_eq!(first_word("What."), "what");
        assert_eq!(first_word("`What` is"), "");
    }
}

//! Log message metrics L1 and L2.

use super::measure::{Finding, Measure, Unit};
use super::text::is_listed;
use crate::lexer::{TokenKind, string_content, token_text};
use crate::source::{RustFile, Workspace};

const MACROS: &str = "trace debug info warn error";
const VERBS: &str = "failed stopped started is are has cannot keeping using skipping retrying";
/// Capitalized names that may start a message; acronyms are recognized by their second letter.
const PROPER_NOUNS: &str = "PostgreSQL Redis Linux OpenSSH Prometheus";

/// Message of a log macro; empty if the macro has none.
struct Message<'a> {
    line: usize,
    text: &'a str,
}

/// Messages of the log macros: the last string literal that is a whole argument.
fn messages(file: &RustFile) -> Vec<Message<'_>> {
    let mut messages = Vec::new();
    for index in 0..file.code.len() {
        let is_macro = file.code[index].kind == TokenKind::Ident && is_listed(MACROS, file.code_text(index));
        if !is_macro || !file.code_matches(index + 1, &["!", "("]) {
            continue;
        }
        let end = file.after_group(index + 2);
        let is_argument = |at: &usize| {
            file.code[*at].kind == TokenKind::Str
                && matches!(file.code_text(at - 1), "," | "(")
                && matches!(file.code_text(at + 1), "," | ")")
        };
        let last = (index + 3..end).rev().find(is_argument);
        let text = last.map_or("", |at| string_content(token_text(&file.text, &file.code[at])));
        messages.push(Message { line: file.line(index), text });
    }
    messages
}

fn is_malformed(text: &str) -> bool {
    let mut letters = text.chars();
    let starts_upper = letters.next().is_some_and(char::is_uppercase);
    let is_acronym = letters.next().is_some_and(|second| second.is_uppercase() || second.is_ascii_digit());
    let first = text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
    let is_name = is_acronym || is_listed(PROPER_NOUNS, first);
    text.split_whitespace().count() < 2 || (starts_upper && !is_name) || text.ends_with('.')
}

fn has_verb(text: &str) -> bool {
    let words = text.split(|letter: char| !letter.is_ascii_alphabetic());
    words
        .map(str::to_ascii_lowercase)
        .any(|word| word.ends_with("ed") || word.ends_with("ing") || is_listed(VERBS, &word))
}

/// Measures L1 and L2 over all log macros.
pub(crate) fn measure_logs(workspace: &Workspace) -> Vec<Measure> {
    let (mut malformed, mut verbless) = (Vec::new(), Vec::new());
    for file in &workspace.rust {
        for message in messages(file) {
            let place = Finding::new(&file.path, message.line, message.text);
            if is_malformed(message.text) {
                malformed.push(place.clone());
            }
            if !has_verb(message.text) {
                verbless.push(place);
            }
        }
    }
    vec![Measure::new("L1", Unit::Count, malformed), Measure::new("L2", Unit::Count, verbless)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_messages_are_checked_for_form_and_verb() {
        let text = r#"fn f() {
            tracing::warn!(%error, "queue");
            info!(name = "x y", "Sent it");
            error!("SQLite is locked");
            debug!(value, "opened a file.");
            warn!(code = f("a, b"), "no verb here");
            trace!(%error);
            let error = "plain words"; compile_error!("not a log");
        }"#;
        let workspace =
            Workspace { rust: vec![RustFile::new("x.rs", text.to_owned())], ..Workspace::default() };
        let measures = measure_logs(&workspace);
        let lines = |at: usize| measures[at].places.iter().map(|place| place.line).collect::<Vec<_>>();
        assert_eq!(lines(0), [2, 3, 5, 7]);
        assert_eq!(lines(1), [2, 3, 6, 7]);
    }
}

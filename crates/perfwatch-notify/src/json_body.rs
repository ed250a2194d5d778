//! JSON bodies from templates: values are escaped for the place where they are inserted.
//!
//! The template engine marks each inserted value. The text around the marks tells whether the value is
//! inside of a JSON string (`"{{ title }}"`), where its text is escaped, or outside of strings
//! (`{{ title }}`), where it becomes a JSON value. A value that a filter made safe, such as
//! `{{ title|tojson }}`, is not marked.

use minijinja::{Error, ErrorKind, Output, State, Value};
use serde::de::IgnoredAny;

/// Name of the escape mode in the template engine.
pub(crate) const ESCAPE_MODE: &str = "json body";
/// Start of a marked value; Unicode reserves these characters for such internal marks.
const MARK_START: char = '\u{fdd0}';
/// Separator of the text and the JSON of a marked value.
const MARK_JSON: char = '\u{fdd1}';
/// End of a marked value.
const MARK_END: char = '\u{fdd2}';
/// Number of characters around an error that its message shows.
const MAX_EXCERPT_CHARS: usize = 24;

/// Returns true for a character that marks values. Texts that are inserted must not contain it.
pub(crate) fn is_mark(c: char) -> bool {
    (MARK_START..=MARK_END).contains(&c)
}

/// Formatter of the template engine that marks values.
pub(crate) fn write_marked(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.is_safe() {
        return write!(out, "{value}").map_err(Error::from);
    }
    let invalid = |error| Error::new(ErrorKind::BadSerialization, "value is not JSON").with_source(error);
    let text = value.to_string().replace(is_mark, "\u{fffd}");
    // The marks do not occur in the JSON of other types, and a string is escaped after its text.
    let json = serde_json::to_string(value).map_err(invalid)?.replace(is_mark, "\u{fffd}");
    write!(out, "{MARK_START}{text}{MARK_JSON}{json}{MARK_END}").map_err(Error::from)
}

/// Inserts the marked values into the text around them.
pub(crate) fn insert_values(marked: &str) -> String {
    let mut out = String::with_capacity(marked.len());
    let (mut in_string, mut is_escaped) = (false, false);
    let mut rest = marked;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c == MARK_START {
            let (value, after) = rest.split_once(MARK_END).unwrap_or((rest, ""));
            let (text, json) = value.split_once(MARK_JSON).unwrap_or((value, value));
            rest = after;
            if in_string {
                out.push_str(&escape(text));
            } else {
                out.push_str(json);
            }
            continue;
        }
        if is_mark(c) {
            continue;
        }
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if in_string => is_escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        out.push(c);
    }
    out
}

/// Text as the content of a JSON string.
fn escape(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or_default().to_owned()
}

/// Checks that a body is an object or a list in JSON.
///
/// # Errors
/// Returns the error with its place and the text around it.
pub(crate) fn validate(body: &str) -> Result<(), String> {
    if !body.trim_start().starts_with(['{', '[']) {
        return Err(format!("the body is not JSON: it starts with {:?}", excerpt(body, 1, 1)));
    }
    serde_json::from_str::<IgnoredAny>(body).map(|_| ()).map_err(|error| {
        let near = excerpt(body, error.line(), error.column());
        format!("the body is not JSON: {error}, near {near:?}")
    })
}

/// Characters around a place of a text; the column counts bytes from 1.
fn excerpt(text: &str, line: usize, column: usize) -> String {
    let line = text.split('\n').nth(line.saturating_sub(1)).unwrap_or_default();
    let index = line.floor_char_boundary(column.saturating_sub(1));
    let before: Vec<char> = line[..index].chars().rev().take(MAX_EXCERPT_CHARS).collect();
    before.into_iter().rev().chain(line[index..].chars().take(MAX_EXCERPT_CHARS)).collect()
}

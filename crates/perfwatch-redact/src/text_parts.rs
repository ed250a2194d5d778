//! Parts of texts that all forms of secrets share: the mask, names and quoted texts.

/// Replacement of a secret.
pub(super) const MASK: &str = "***";

/// Returns whether a character can be a part of a name.
pub(super) fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_-.[]".contains(character)
}

/// Range of the content of a quoted text, whose quotes can be escaped or nested (`\"x\"`, `'"'"'x'"'"'`).
/// `None` without a quote at the start.
pub(super) fn quoted_range(text: &str) -> Option<(usize, usize)> {
    let is_quote = |c: char| matches!(c, '"' | '\'' | '\\' | '`');
    let start = text.find(|c| !is_quote(c)).unwrap_or(text.len());
    let quote = text[..start].chars().find(|c| *c != '\\')?;
    if start == 1 {
        let is_closing = |(index, _): &(usize, &str)| *index == 0 || !text[1..][..*index].ends_with('\\');
        let closing = text[1..].match_indices(quote).find(is_closing);
        return Some((1, closing.map_or(text.len(), |(index, _)| index + 1)));
    }
    // An empty text is followed by the remaining statement.
    if text[start..].starts_with(|c: char| c.is_whitespace() || ";,)]}".contains(c)) {
        return Some((start, start));
    }
    Some((start, text[start..].find(is_quote).map_or(text.len(), |end| start + end)))
}

//! Secrets inside a text, whatever program it belongs to: the values of secret names.

use super::addresses::{address_password, is_address, is_webhook, mask_addresses, mask_urls, webhook_path};
use super::secret_names::{NameKind, classify, is_header, is_key_header, is_phrase};
use super::statements::{mask_elements, mask_statements};
use super::text_parts::{MASK, is_name_character, quoted_range};
use super::tokens::mask_tokens;

/// Masks all secrets of a text that need no context. `is_value_whole` is true if a secret name at the start
/// has the remaining text as its value, spaces included.
pub(super) fn mask_text(text: &str, is_value_whole: bool) -> String {
    let text = mask_assignments(&mask_urls(text), is_value_whole);
    mask_tokens(&mask_addresses(&mask_statements(&mask_elements(&mask_encoded(&text)))))
}

/// Masks the values of `name=value`, `name: value` and `"name":"value"` if the name is secret.
fn mask_assignments(text: &str, is_value_whole: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut from) = (0, 0);
    while let Some(index) = text[from..].find(['=', ':']).map(|index| from + index) {
        from = index + 1;
        if let Some((start, end)) = secret_value(text, copied, index, is_value_whole) {
            out.push_str(&text[copied..start]);
            out.push_str(MASK);
            copied = end;
            from = end;
        }
    }
    out.push_str(&text[copied..]);
    out
}

/// Finds the value of the secret whose separator is at `index`. The name cannot start before `first`.
fn secret_value(text: &str, first: usize, index: usize, is_value_whole: bool) -> Option<(usize, usize)> {
    let is_colon = text.as_bytes()[index] == b':';
    let unspaced = text[first..index].trim_end_matches(' ');
    let is_spaced = first + unspaced.len() < index;
    // `"password"` and `ENV['password']`
    let before = unspaced.trim_end_matches(['"', '\'', '\\', ']', '}']);
    let is_quoted = unspaced[before.len()..].contains(['"', '\'']);
    let start = first
        + before
            .rfind(|c| !is_name_character(c))
            .map_or(0, |last| last + before[last..].chars().next().map_or(1, char::len_utf8));
    let name = &text[start..first + before.len()];
    let previous = text[..start].chars().next_back();
    let is_arrow = text[index..].starts_with("=>");
    let separator_end = index + if is_arrow { 2 } else { 1 };
    let after = &text[separator_end..];
    let value_start =
        separator_end + if is_colon || is_spaced || is_arrow { leading_spaces(after) } else { 0 };
    let value = &text[value_start..];
    let kind = match classify(name) {
        // `/password:` is an option of Windows. Image names (`registry/token:1`) and the users of URLs are
        // no assignments.
        kind if is_colon && is_slash_option(&text[..start]) => kind,
        _ if is_colon && (previous == Some('/') || after.starts_with("//")) => NameKind::Harmless,
        NameKind::Weak if is_colon && !is_quoted && !is_header(name) && !value.starts_with(['"', '\'']) => {
            NameKind::Harmless
        }
        NameKind::Harmless if name == "key" && previous.is_some_and(|c| matches!(c, '?' | '&' | '#')) => {
            NameKind::Secret
        }
        NameKind::Harmless if is_value_of_secret(&text[..start], name) => NameKind::Secret,
        // Objects of QEMU.
        NameKind::Harmless if name == "data" && text.starts_with("secret,") => NameKind::Secret,
        NameKind::Harmless if is_pragma_key(&text[..start], name) => NameKind::Secret,
        NameKind::Harmless
            if is_colon && is_key_header(name) && matches!(previous, None | Some('"' | '\'' | '=')) =>
        {
            NameKind::Weak
        }
        kind => kind,
    };
    let is_switch = ["true", "false", "yes", "no", "on", "off", "0", "1"].contains(&value);
    if kind == NameKind::Harmless
        && is_webhook(name)
        && let Some((start, end)) = webhook_path(value)
    {
        return Some((value_start + start, value_start + end));
    }
    if kind == NameKind::Harmless && is_address(name) {
        let word = &value[..value.find(char::is_whitespace).unwrap_or(value.len())];
        let (colon, at) = address_password(word)?;
        return Some((value_start + colon, value_start + at));
    }
    let is_harmless_value = match kind {
        NameKind::Harmless => true,
        NameKind::Weak => value.starts_with('/'),
        NameKind::Phrase => !is_phrase(value),
        NameKind::Secret => false,
    };
    if is_harmless_value || value.is_empty() || is_switch || value.starts_with(MASK) {
        return None;
    }
    // `"password: "`: the quote before the name ends here and starts no value.
    let closed = previous
        .filter(|c| !is_quoted && matches!(c, '"' | '\''))
        .and_then(|quote| value.strip_prefix(quote));
    if closed
        .is_some_and(|rest| rest.chars().next().is_none_or(|c| c.is_whitespace() || ";,)]}+.".contains(c)))
    {
        return None;
    }
    let (start, end) = value_range(value, previous, before, is_header(name), is_value_whole);
    (end > start).then_some((value_start + start, value_start + end))
}

/// Returns whether a name after this text is an option such as `/password:`.
fn is_slash_option(before: &str) -> bool {
    before.strip_suffix('/').is_some_and(|text| text.is_empty() || text.ends_with(char::is_whitespace))
}

/// Returns whether a name belongs to the value of the name before it (`"name":"PASSWORD","value":"SECRET"`,
/// `ParameterKey=PASSWORD,ParameterValue=SECRET`).
fn is_value_of_secret(before: &str, name: &str) -> bool {
    if !name.to_ascii_lowercase().ends_with("value") {
        return false;
    }
    let is_gap = |c: char| c.is_whitespace() || "\"'\\,;:={".contains(c);
    let before = before.trim_end_matches(is_gap);
    let secret_start = before.rfind(|c| !is_name_character(c)).map_or(0, |last| last + 1);
    let Some(secret) = before.get(secret_start..) else { return false };
    let label = before[..secret_start].trim_end_matches(is_gap);
    let is_label = ["name", "key"].iter().any(|end| {
        let start = label.len().checked_sub(end.len());
        start.and_then(|start| label.get(start..)).is_some_and(|last| last.eq_ignore_ascii_case(end))
    });
    is_label && classify(secret) == NameKind::Secret
}

/// Returns whether a name is the key of an encrypted SQLite database (`PRAGMA key = 'SECRET'`).
fn is_pragma_key(before: &str, name: &str) -> bool {
    if !["key", "rekey", "hexkey", "hexrekey"].iter().any(|key| name.eq_ignore_ascii_case(key)) {
        return false;
    }
    let end = before.trim_end().len();
    end >= 6 && before.get(end - 6..end).is_some_and(|word| word.eq_ignore_ascii_case("pragma"))
}

/// Masks the values of percent-encoded assignments (`password%3DSECRET`, `%22password%22%3A%22SECRET%22`).
fn mask_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut from) = (0, 0);
    while let Some(index) = text[from..].find("%3").map(|index| from + index) {
        from = index + 2;
        let Some(separator) = text[from..].chars().next().filter(|c| "DdAa".contains(*c)) else { continue };
        from += 1;
        let before = text[copied..index].trim_end_matches("%22").trim_end_matches("%27");
        let name_start = before.rfind(|c| !is_name_character(c)).map_or(0, |last| {
            let character = before[last..].chars().next().unwrap_or_default();
            // The digits of an encoded character are no part of the name.
            let skipped = if character == '%' { 3 } else { character.len_utf8() };
            (last + skipped).min(before.len())
        });
        let kind = before.get(name_start..).map_or(NameKind::Harmless, classify);
        let is_equals = separator.eq_ignore_ascii_case(&'d');
        if kind != NameKind::Secret && !(kind == NameKind::Weak && is_equals) {
            continue;
        }
        let mut start = from;
        while let Some(space) =
            ["%20", "%22", "%27", "+"].iter().find(|space| text[start..].starts_with(**space))
        {
            start += space.len();
        }
        let ends = ["%26", "%22", "%27", "%2C", "%2c", "%7D", "%7d"];
        let is_end = |&(index, character): &(usize, char)| match character {
            '%' => ends.iter().any(|end| text[start + index..].starts_with(end)),
            _ => character.is_whitespace() || matches!(character, '&' | '"' | '\''),
        };
        let end = text[start..].char_indices().find(is_end).map_or(text.len(), |(end, _)| start + end);
        if end > start {
            out.push_str(&text[copied..start]);
            out.push_str(MASK);
            copied = end;
        }
        from = end;
    }
    out.push_str(&text[copied..]);
    out
}

fn leading_spaces(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// Range of a secret in the text after its separator. The character before the name decides what ends
/// the value: `&` in a query, `;` or `,` in a list, a quote in JSON.
fn value_range(
    value: &str,
    previous: Option<char>,
    before: &str,
    is_header: bool,
    is_value_whole: bool,
) -> (usize, usize) {
    let opening = value.trim_start_matches('\\');
    // Quotes inside quotes of the other kind.
    if ["'\"'", "'\\''"].iter().any(|nested| value.starts_with(nested))
        && let Some(range) = quoted_range(value)
    {
        return range;
    }
    if let Some(quote) = opening.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let start = value.len() - opening.len() + 1;
        // A quote after a backslash is a part of the value, unless all quotes of the text are escaped.
        let is_closing =
            |index: &usize| start > 1 || *index == 0 || !value[start..][..*index].ends_with('\\');
        let mut quotes = value[start..].match_indices(quote).map(|(index, _)| index);
        let closing = quotes.find(is_closing).map_or(value.len(), |end| start + end);
        // A backslash before the closing quote escapes it in the surrounding text.
        let escape = value[start..closing].len() - value[start..closing].trim_end_matches('\\').len();
        return (start, if start > 1 { closing - escape } else { closing });
    }
    let end = match previous {
        // `auth=('user', 'password')`
        _ if ["(", "$(", "HTTP"].iter().any(|start| value.starts_with(start)) => {
            value.find(')').map(|end| end + 1)
        }
        _ if is_header => previous.filter(|c| matches!(c, '"' | '\'')).and_then(|quote| value.find(quote)),
        None if is_value_whole => None,
        Some('?' | '&' | '#') => value.find(|c: char| c == '&' || c.is_whitespace()),
        Some(separator @ (';' | ',')) => value.find(separator),
        Some('{' | '"' | '\'' | '\\') => value.find([',', '}', '"', '\'', ' ']),
        Some(' ') => {
            // `Server=x; Password=a b;` has a space after its real separator.
            let list = before.trim_end_matches(|c: char| is_name_character(c)).trim_end();
            match list.chars().next_back() {
                Some(separator @ (';' | ',')) => value.find(separator),
                _ => value.find(char::is_whitespace),
            }
        }
        _ => value.find(char::is_whitespace),
    };
    (0, end.unwrap_or(value.len()))
}

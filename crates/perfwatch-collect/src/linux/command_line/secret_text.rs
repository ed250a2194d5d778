//! Secrets inside a text, whatever program it belongs to: passwords of URLs, assignments, known tokens.

use super::secret_names::{NameKind, classify, is_header};

/// Replacement of a secret.
pub(super) const MASK: &str = "***";

/// Starts of tokens of well-known services, with the minimum number of further characters. The last row
/// has the tokens of this program.
#[rustfmt::skip]
const TOKEN_PREFIXES: &[(&str, usize)] = &[
    ("ghp_", 6), ("gho_", 6), ("ghu_", 6), ("ghs_", 6), ("ghr_", 6), ("github_pat_", 6), ("glpat-", 6),
    ("glrt-", 6), ("gldt-", 6), ("xoxa-", 6), ("xoxb-", 6), ("xoxp-", 6), ("xoxr-", 6), ("xoxs-", 6),
    ("xapp-", 6), ("AKIA", 12), ("ASIA", 12), ("sk-", 16), ("sk_live_", 6), ("rk_live_", 6), ("eyJ", 12),
    ("npm_", 16), ("pypi-", 16), ("hvs.", 12), ("AIza", 20), ("ya29.", 12), ("SG.", 20), ("tskey-", 6),
    ("glsa_", 6), ("hf_", 16), ("dckr_pat_", 6), ("dop_v1_", 6), ("shpat_", 6), ("whsec_", 6),
    ("AGE-SECRET-KEY-", 6), ("pwa_", 6), ("pwe_", 6), ("pws_", 6), ("pwt_", 6), ("pwu_", 6),
];

/// Masks all secrets that a text shows by itself. `is_value_whole` is true if a secret name at the start
/// has the remaining text as its value, spaces included.
pub(super) fn mask_text(text: &str, is_value_whole: bool) -> String {
    mask_tokens(&mask_assignments(&mask_urls(text), is_value_whole))
}

/// Masks the passwords of URLs at any position. A password may contain `/` and `@`.
fn mask_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut remaining = text;
    while let Some(start) = remaining.find("://") {
        let (scheme, url) = remaining.split_at(start + 3);
        out.push_str(scheme);
        // The next URL of the word is not a part of this password.
        let limit = url.find("://").map_or(url.len(), |next| {
            url[..next].rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |index| index + 1)
        });
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`');
        let end = url[..limit].find(is_end).unwrap_or(limit);
        out.push_str(&mask_userinfo(&url[..end]));
        remaining = &url[end..];
    }
    out.push_str(remaining);
    mask_driver_address(out)
}

/// Masks `user:password@host/path`, the text of a URL after its scheme (RFC 3986, section 3.2.1).
fn mask_userinfo(url: &str) -> String {
    let authority = &url[..url.find(['/', '?', '#']).unwrap_or(url.len())];
    let has_query = |index: &usize| {
        let query = url[*index + 1..].trim_start_matches(is_name_character);
        query.starts_with('=') && !url[*index + 1..].starts_with('=')
    };
    let end = url.match_indices('?').map(|(index, _)| index).find(has_query).unwrap_or(url.len());
    let Some(at) = url[..end].rfind('@') else { return url.to_owned() };
    let Some(colon) = authority.find(':').filter(|&colon| colon < at) else {
        let user = authority.split('@').next().unwrap_or_default();
        // A user name of this kind is a token: `https://TOKEN@host`.
        let is_token = user.len() >= 20
            && user.len() < authority.len()
            && user.contains(|c: char| c.is_ascii_digit())
            && user.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        return if is_token { format!("{MASK}{}", &url[user.len()..]) } else { url.to_owned() };
    };
    // Without `@` before the path, the text after the colon is a port, or a password with a slash. The
    // path can contain an `@` that has nothing to do with a password, as in `db/x:y@z`.
    let is_port = url[colon + 1..authority.len()].bytes().all(|b| b.is_ascii_digit());
    if !authority.contains('@') && is_port {
        return url.to_owned();
    }
    // `user@host:22`, with an `@` in the path.
    if authority[..colon].contains('@') && !authority[colon..].contains('@') {
        return url.to_owned();
    }
    format!("{}:{MASK}{}", &url[..colon], &url[at..])
}

/// Masks `user:password@tcp(host)`, the address of the MySQL driver of Go.
fn mask_driver_address(text: String) -> String {
    let Some(at) = ["@tcp(", "@unix("].iter().find_map(|mark| text.find(mark)) else { return text };
    let word = text[..at].rfind([' ', '=', '"', '\'']).map_or(0, |index| index + 1);
    match text[word..at].find(':') {
        Some(colon) => format!("{}:{MASK}{}", &text[..word + colon], &text[at..]),
        None => text,
    }
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_-.[]".contains(character)
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
    let unspaced = if is_colon { &text[first..index] } else { text[first..index].trim_end_matches(' ') };
    let is_spaced = first + unspaced.len() < index;
    let before = unspaced.trim_end_matches(['"', '\'', '\\']);
    let is_quoted = before.len() < unspaced.len();
    let start = first
        + before
            .rfind(|c| !is_name_character(c))
            .map_or(0, |last| last + before[last..].chars().next().map_or(1, char::len_utf8));
    let name = &text[start..first + before.len()];
    let previous = text[..start].chars().next_back();
    let after = &text[index + 1..];
    let in_query = previous.is_some_and(|c| matches!(c, '?' | '&' | '#'));
    let kind = match classify(name) {
        // Image names (`registry/token:1`) and the users of URLs are no assignments.
        _ if is_colon && (previous == Some('/') || after.starts_with("//")) => NameKind::Harmless,
        NameKind::Weak if is_colon && !is_quoted && !is_header(name) => NameKind::Harmless,
        NameKind::Harmless if in_query && name == "key" => NameKind::Secret,
        kind => kind,
    };
    let value_start = index + 1 + if is_colon || is_spaced { leading_spaces(after) } else { 0 };
    let value = &text[value_start..];
    let is_switch = ["true", "false", "yes", "no", "on", "off", "0", "1"].contains(&value);
    if kind == NameKind::Harmless && is_address(name) {
        let word = &value[..value.find(char::is_whitespace).unwrap_or(value.len())];
        let (colon, at) = address_password(word)?;
        return Some((value_start + colon, value_start + at));
    }
    if kind == NameKind::Harmless
        || value.is_empty()
        || is_switch
        || value.starts_with(MASK)
        || (kind == NameKind::Weak && value.starts_with('/'))
    {
        return None;
    }
    let (start, end) = value_range(value, previous, before, is_header(name), is_value_whole);
    (end > start).then_some((value_start + start, value_start + end))
}

/// Returns whether the value of a name can be `user:password@host` without a scheme.
fn is_address(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["proxy", "dsn", "broker"].iter().any(|end| name.ends_with(end))
}

/// Range of the password in `user:password@host`; `None` for a URL and for an address without password.
pub(super) fn address_password(value: &str) -> Option<(usize, usize)> {
    let at = value.rfind('@').filter(|_| !value.contains("://"))?;
    let colon = value[..at].find(':').filter(|colon| !value[..*colon].contains(MASK))?;
    (colon + 1 < at && &value[colon + 1..at] != MASK).then_some((colon + 1, at))
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

/// Masks tokens with a well-known start.
fn mask_tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut is_inside_word) = (0, false);
    for (index, character) in text.char_indices() {
        if index < copied {
            continue;
        }
        if !is_inside_word && let Some((prefix, length)) = token_at(&text[index..]) {
            out.push_str(&text[copied..index + prefix]);
            out.push_str(MASK);
            copied = index + length;
        }
        is_inside_word = character.is_alphanumeric();
    }
    out.push_str(&text[copied..]);
    out
}

/// Lengths of the prefix and of the whole token at the start of a text.
fn token_at(text: &str) -> Option<(usize, usize)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    TOKEN_PREFIXES.iter().find_map(|&(prefix, min_chars)| {
        let token = text.strip_prefix(prefix)?;
        let length = token.find(|c| !is_token(c)).unwrap_or(token.len());
        (length >= min_chars).then_some((prefix.len(), prefix.len() + length))
    })
}

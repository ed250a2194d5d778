//! Secrets in statements of SQL, JavaScript and Expect, and in XML elements.

use super::secret_names::{NameKind, classify};
use super::text_parts::{MASK, is_name_character, quoted_range};

/// Verbs of SQL before `IDENTIFIED`.
const SQL_VERBS: &[&str] = &["create ", "CREATE ", "alter ", "ALTER ", "grant ", "GRANT "];

/// Words of SQL between `IDENTIFIED` and the password.
const AUTHENTICATION_WORDS: &[&str] = &["by", "as", "using", "password", "values"];

/// Functions whose first text is a user if there are several texts.
const LOGIN_FUNCTIONS: &[&str] = &["auth", "authenticate", "login", "createuser", "adduser"];

/// Ends of names of functions whose first text is an address and the next texts are a user and a password.
const CONNECT_FUNCTIONS: &[&str] = &["connect", "getconnection", "mysqli", "pdo"];

/// Parts of names of functions whose texts are all secrets.
const CIPHER_FUNCTIONS: &[&str] = &["encrypt", "decrypt", "hashpw", "getpass"];

/// Maximum length of the arguments of a function, so that the cost is linear.
const MAX_CALL_BYTES: usize = 1024;

/// Masks the passwords of statements.
pub(super) fn mask_statements(text: &str) -> String {
    if !text.contains(['"', '\'', ' ']) {
        return text.to_owned();
    }
    let is_expect = text.contains("spawn ") || text.contains("expect ") || text.starts_with("send ");
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut from) = (0, 0);
    while let Some((start, end)) = next_name(text, from) {
        from = end;
        // The text of a mask and of a name inside it was handled before.
        if start < copied {
            continue;
        }
        for (first, last) in statement_secrets(text, start, end, is_expect) {
            if first >= copied && last > first && !text[first..last].starts_with(MASK) {
                out.push_str(&text[copied..first]);
                out.push_str(MASK);
                copied = last;
            }
        }
    }
    out.push_str(&text[copied..]);
    out
}

/// Finds the next word of name characters.
fn next_name(text: &str, from: usize) -> Option<(usize, usize)> {
    let start = from + text[from..].find(|c: char| c.is_ascii_alphabetic() || c == '_')?;
    let length = text[start..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    Some((start, length.map_or(text.len(), |length| start + length)))
}

/// Ranges of the secrets after a word of a statement.
fn statement_secrets(text: &str, start: usize, end: usize, is_expect: bool) -> Vec<(usize, usize)> {
    let word = &text[start..end];
    let after = &text[end..];
    let previous = text[..start].chars().next_back();
    if let Some(arguments) = after.strip_prefix('(') {
        return call_secrets(word, arguments, end + 1);
    }
    let spaces = after.len() - after.trim_start().len();
    if spaces == 0 || previous == Some('-') {
        return Vec::new();
    }
    let value_start = end + spaces;
    let value = &text[value_start..];
    let shifted = |range: (usize, usize)| vec![(value_start + range.0, value_start + range.1)];
    if word.eq_ignore_ascii_case("identified") {
        return identified_by(text, value_start).into_iter().collect();
    }
    if is_expect && matches!(word, "send" | "exp_send") {
        let value = value.strip_prefix("-- ").unwrap_or(value);
        let value_start = text.len() - value.len();
        let range = quoted_range(value).or_else(|| {
            let braces = value.strip_prefix('{')?;
            Some((1, 1 + braces.find('}').unwrap_or(braces.len())))
        });
        let (first, last) =
            range.unwrap_or((0, value.find(|c: char| c.is_whitespace() || c == ';').unwrap_or(value.len())));
        return vec![(value_start + first, value_start + last)];
    }
    if word.eq_ignore_ascii_case("password")
        && value.get(..4).is_some_and(|next| next.eq_ignore_ascii_case("for "))
    {
        return password_for(value).map(shifted).unwrap_or_default();
    }
    // `login USER password SECRET` and `USER x PASS SECRET`
    let mut words = text[..start].rsplit(char::is_whitespace).filter(|word| !word.is_empty());
    let (user, label) = (words.next(), words.next());
    let is_login = matches!(word, "password" | "passwd" | "pass")
        && !matches!(user, Some("set" | "change" | "reset"))
        && matches!(label, Some("login" | "user" | "username"));
    if is_login || (word == "PASS" && text[..start].contains("USER ")) {
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ';');
        let length = value.trim_start_matches(['"', '\'']).find(is_end).unwrap_or(value.len());
        let quotes = value.len() - value.trim_start_matches(['"', '\'']).len();
        return shifted((quotes, (quotes + length).min(value.len())));
    }
    // `PASSWORD 'SECRET'`; a word after a quote has its own end.
    if classify(word) == NameKind::Secret && !matches!(previous, Some('"' | '\'')) {
        let value_text = value.strip_prefix(['E', 'e', 'N']).filter(|rest| rest.starts_with('\''));
        let skipped = value.len() - value_text.unwrap_or(value).len();
        // A variable is no secret.
        if let Some((first, last)) = quoted_range(value_text.unwrap_or(value))
            && !value[skipped + first..].starts_with('$')
        {
            return shifted((skipped + first, skipped + last));
        }
        if let Some(text) = value.strip_prefix("$$") {
            return shifted((2, 2 + text.find("$$").unwrap_or(text.len())));
        }
    }
    Vec::new()
}

/// Range of the password in the text `FOR user = 'password'` after `SET PASSWORD`.
fn password_for(text: &str) -> Option<(usize, usize)> {
    let mut start = text.char_indices().take(MAX_CALL_BYTES);
    let separator = start.find(|(_, c)| matches!(c, '=' | ';')).filter(|(_, c)| *c == '=')?.0 + 1;
    let start = separator + text[separator..].len() - text[separator..].trim_start().len();
    let (first, last) = quoted_range(&text[start..])?;
    Some((start + first, start + last))
}

/// Range of the password of `IDENTIFIED [WITH plugin] BY [PASSWORD] password`.
fn identified_by(text: &str, start: usize) -> Option<(usize, usize)> {
    let mut from = start;
    let mut is_password_next = false;
    // At most the words `WITH plugin BY PASSWORD` precede the password.
    for _ in 0..5 {
        from += text[from..].len() - text[from..].trim_start().len();
        let is_end = |c: char| c.is_whitespace() || matches!(c, ';' | ',' | ')' | '(');
        let end = text[from..].find(is_end).map_or(text.len(), |end| from + end);
        let word = &text[from..end];
        if AUTHENTICATION_WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)) {
            is_password_next = true;
        } else if is_password_next {
            let quoted = quoted_range(&text[from..]);
            let is_sql = || SQL_VERBS.iter().any(|verb| text[..start].contains(verb));
            let (first, last) = quoted.or_else(|| is_sql().then_some((0, word.len())))?;
            return (!word.is_empty()).then_some((from + first, from + last));
        }
        from = end;
    }
    None
}

/// Ranges of the secrets in the arguments of a function.
fn call_secrets(function: &str, arguments: &str, offset: usize) -> Vec<(usize, usize)> {
    let name = function.to_ascii_lowercase();
    let is_cipher = CIPHER_FUNCTIONS.iter().any(|part| name.contains(part)) || name == "crypt";
    let is_connect = CONNECT_FUNCTIONS.iter().any(|end| name.ends_with(end));
    let is_login =
        LOGIN_FUNCTIONS.iter().any(|end| name.ends_with(end)) || classify(function) == NameKind::Secret;
    let mut limit = arguments.len().min(MAX_CALL_BYTES);
    while !arguments.is_char_boundary(limit) {
        limit -= 1;
    }
    let arguments = &arguments[..limit];
    let mut texts = Vec::new();
    let mut from = 0;
    // Later arguments are options.
    while texts.len() < 4
        && let Some(index) = arguments[from..].find(['"', '\'', '`', '\\', ')']).map(|index| from + index)
        && !arguments[index..].starts_with(')')
    {
        let Some((start, end)) = quoted_range(&arguments[index..]) else { break };
        texts.push((offset + index + start, offset + index + end));
        // Behind the closing quote and its escape.
        let closing = arguments[index + end..].find(|c| !matches!(c, '"' | '\'' | '`' | '\\'));
        from = closing.map_or(arguments.len(), |length| index + end + length);
    }
    // The remaining arguments can be in the next word.
    let first = texts.first().and_then(|(start, end)| arguments.get(start - offset..end - offset));
    // `setdefault("PASSWORD", "SECRET")`
    let is_setter =
        first.is_some_and(|name| classify(name) == NameKind::Secret && name.chars().all(is_name_character));
    if !is_cipher && !is_login && !is_connect && !is_setter {
        return Vec::new();
    }
    let has_more =
        is_connect || is_setter || texts.len() > 1 || arguments[from..].trim_start().starts_with(',');
    let skipped = usize::from(!is_cipher && has_more).min(texts.len());
    texts.split_off(skipped)
}

/// Masks the contents of XML elements with a secret name (`<password>SECRET</password>`).
pub(super) fn mask_elements(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (index, _) in text.match_indices("</") {
        let name = &text[index + 2..];
        let name = &name[..name.find(|c| !is_name_character(c) && c != ':').unwrap_or(name.len())];
        if index < copied {
            continue;
        }
        let Some(start) = text[copied..index].rfind('>').map(|start| copied + start + 1) else { continue };
        // `<value name="password">`
        let tag = text[..start].rfind('<').map_or("", |tag| &text[tag..start]);
        let mut attributes = tag.split(['"', '\'']).skip(1).step_by(2);
        let is_secret = matches!(classify(name), NameKind::Secret | NameKind::Weak)
            || attributes.any(|value| value.len() < 64 && classify(value) == NameKind::Secret);
        if is_secret && start < index && &text[start..index] != MASK {
            out.push_str(&text[copied..start]);
            out.push_str(MASK);
            copied = index;
        }
    }
    out.push_str(&text[copied..]);
    out
}

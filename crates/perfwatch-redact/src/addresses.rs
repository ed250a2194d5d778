//! Passwords in URLs and in addresses, and URLs whose path is a secret.

use super::text_parts::{MASK, is_name_character};

/// Masks the passwords of URLs at any position. A password may contain `/` and `@`.
pub(super) fn mask_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut remaining = text;
    while let Some(start) = remaining.find("://") {
        let (scheme, url) = remaining.split_at(start + 3);
        out.push_str(scheme);
        // The next URL of the word is not a part of this password.
        let limit = url.find("://").map_or(url.len(), |next| {
            url[..next].trim_end_matches(|c: char| c.is_ascii_alphanumeric()).len()
        });
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`');
        let end = url[..limit].find(is_end).unwrap_or(limit);
        out.push_str(&mask_userinfo(&url[..end]));
        remaining = &url[end..];
    }
    out.push_str(remaining);
    mask_driver_address(out)
}

/// Starts of URLs without their scheme whose remaining path is a secret.
const SECRET_PATHS: &[SecretPath] = &[
    secret_path("api.telegram.org/bot", 0),
    secret_path("api.telegram.org/file/bot", 0),
    secret_path("hooks.slack.com/services/", 0),
    secret_path("hooks.slack.com/workflows/", 0),
    secret_path("hooks.slack.com/triggers/", 0),
    secret_path("discord.com/api/webhooks/", 1),
    secret_path("discordapp.com/api/webhooks/", 1),
    secret_path("webhook.office.com/webhookb2/", 0),
    secret_path("outlook.office.com/webhook/", 0),
    secret_path("hooks.zapier.com/hooks/catch/", 1),
    secret_path("events.pagerduty.com/integration/", 0),
    secret_path("hc-ping.com/", 0),
    secret_path("rtmp.youtube.com/live2/", 0),
    secret_path("live.twitch.tv/app/", 0),
];

/// Path with a secret.
#[derive(Debug)]
struct SecretPath {
    start: &'static str,
    /// Number of segments between the start and the secret.
    skipped: usize,
}

const fn secret_path(start: &'static str, skipped: usize) -> SecretPath {
    SecretPath { start, skipped }
}

/// Returns whether the value of a name is a URL whose path is a secret.
pub(super) fn is_webhook(name: &str) -> bool {
    name.to_ascii_lowercase().contains("webhook")
}

/// Range of the path of a URL.
pub(super) fn webhook_path(url: &str) -> Option<(usize, usize)> {
    let url = url.split(char::is_whitespace).next()?;
    let host = url.find("://").filter(|scheme| *scheme < 8)? + 3;
    let path = host + url[host..].find('/')? + 1;
    (path < url.len() && !url[path..].contains(MASK)).then_some((path, url.len()))
}

/// Masks the secret paths of webhooks.
fn mask_paths(text: &str) -> String {
    let mut text = text.to_owned();
    for path in SECRET_PATHS {
        if !text.contains(path.start) {
            continue;
        }
        let mut out = String::with_capacity(text.len());
        let mut remaining = text.as_str();
        while let Some(index) = remaining.find(path.start) {
            let (before, rest) = remaining.split_at(index + path.start.len());
            out.push_str(before);
            // The method of a bot follows its token.
            let is_bot = path.start.ends_with("bot");
            let is_end = |c: char| c.is_whitespace() || "\"'?<>`".contains(c) || (is_bot && c == '/');
            let end = rest.find(is_end).unwrap_or(rest.len());
            let slashes = rest[..end].match_indices('/').map(|(index, _)| index + 1);
            let start = std::iter::once(0).chain(slashes).nth(path.skipped).unwrap_or(end);
            out.push_str(&rest[..start]);
            if start < end {
                out.push_str(MASK);
            }
            remaining = &rest[end..];
        }
        out.push_str(remaining);
        text = out;
    }
    text
}

/// Words before a colon that name the kind of an address: `user:bob@example.org` has no password.
#[rustfmt::skip]
const ADDRESS_LABELS: &[&str] = &[
    "account", "acct", "author", "bcc", "cc", "data", "docker", "email", "file", "from", "git", "group", "http",
    "https", "id", "im", "jdbc", "link", "login", "mail", "mailto", "member", "name", "npm", "oci", "owner",
    "pkg", "portal", "principal", "rcpt", "reply-to", "scp", "sender", "serviceaccount", "sip", "sips", "ssh",
    "thin", "to", "upn", "user", "username", "users", "via", "workspace", "xmpp",
];

/// Maximum number of colons of a word that can be the start of a password, so that the cost is linear.
const MAX_ADDRESS_COLONS: usize = 16;

/// Masks the passwords of `user:password@host` without a scheme, and the paths of webhooks.
pub(super) fn mask_addresses(text: &str) -> String {
    let text = mask_paths(text);
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>');
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    // The last piece of the text has no end.
    let ends = text.char_indices().filter(|(_, c)| is_end(*c)).map(|(index, _)| index);
    let mut start = 0;
    for end in ends.chain([text.len()]) {
        if let Some((first, last)) = bare_address_password(&text[start..end]) {
            out.push_str(&text[copied..start + first]);
            out.push_str(MASK);
            copied = start + last;
        }
        start = end + text[end..].chars().next().map_or(0, char::len_utf8);
    }
    out.push_str(&text[copied..]);
    out
}

/// Range of the password of `user:password@host` in a word. The word can contain text before the user, such
/// as `name=`, `DOMAIN/` or `sip:`.
fn bare_address_password(word: &str) -> Option<(usize, usize)> {
    if !word.contains('@') || word.contains("://") {
        return None;
    }
    let is_user = |c: char| c.is_alphanumeric() || "._-+%\\~$".contains(c);
    let (mut user_start, mut colons) = (0, 0);
    for (index, character) in word.char_indices() {
        if is_user(character) {
            continue;
        }
        let before = &word[..user_start];
        let previous = before.chars().next_back();
        let user = &word[user_start..index];
        user_start = index + character.len_utf8();
        // After `@` there is a host with its port.
        // A path can contain `:` and `@`; `//user:password@host` and `DOMAIN/user:password@host` are no paths.
        let path = before.rsplit('=').next().unwrap_or_default();
        let is_path = path.starts_with(['/', '.']) && !path.starts_with("//");
        if character != ':' || user.is_empty() || previous == Some('@') || is_path {
            continue;
        }
        colons += 1;
        if colons > MAX_ADDRESS_COLONS {
            return None;
        }
        let password = &word[index + 1..];
        let authority = &password[..password.find('/').unwrap_or(password.len())];
        let Some(at) = authority.rfind('@') else { continue };
        if is_password(user, &authority[..at], &authority[at + 1..]) {
            return Some((index + 1, index + 1 + at));
        }
    }
    None
}

/// Distinguishes passwords from ports, times, versions and labels.
fn is_password(user: &str, password: &str, host: &str) -> bool {
    let is_label = ADDRESS_LABELS.iter().any(|label| user.eq_ignore_ascii_case(label));
    let is_number = |text: &str| text.chars().all(|c| c.is_ascii_digit() || ".:".contains(c));
    let port = password.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_port = port.len() < password.len() && port.starts_with(',');
    let is_digest = ["sha256:", "sha384:", "sha512:"].iter().any(|digest| host.starts_with(digest));
    let is_host = host.starts_with(|c: char| c.is_alphanumeric() || "[%$_*".contains(c));
    !is_label
        && !password.is_empty()
        && !password.starts_with(':')
        && !password.ends_with(':')
        && !matches!(password, "npm" | "workspace")
        && !password.contains(MASK)
        && !(is_number(password) && user.ends_with(|c: char| c.is_ascii_digit()))
        && !is_port
        && !is_digest
        && is_host
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
    // A user without a password is a token.
    if matches!(&url[colon + 1..at], "" | "x-oauth-basic") && colon > 0 {
        return format!("{MASK}{}", &url[colon..]);
    }
    format!("{}:{MASK}{}", &url[..colon], &url[at..])
}

/// Masks the password of `jdbc:oracle:thin:user/password@host`.
fn mask_oracle_address(text: &str) -> Option<String> {
    let user = text.find("jdbc:oracle:")? + "jdbc:oracle:".len();
    let end = text[user..].find(char::is_whitespace).map_or(text.len(), |end| user + end);
    let slash = user + text[user..end].find('/').filter(|slash| !text[user..user + slash].contains('@'))?;
    let at = slash + text[slash..end].rfind('@')?;
    Some(format!("{}/{MASK}{}", &text[..slash], &text[at..]))
}

/// Masks `user:password@tcp(host)`, the address of the MySQL driver of Go.
fn mask_driver_address(text: String) -> String {
    let text = mask_oracle_address(&text).unwrap_or(text);
    let Some(at) = ["@tcp(", "@unix("].iter().find_map(|mark| text.find(mark)) else { return text };
    let word = text[..at].rfind([' ', '=', '"', '\'']).map_or(0, |index| index + 1);
    match text[word..at].find(':') {
        Some(colon) => format!("{}:{MASK}{}", &text[..word + colon], &text[at..]),
        None => text,
    }
}

/// Returns whether the value of a name can be `user:password@host` without a scheme.
pub(super) fn is_address(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["proxy", "dsn", "broker"].iter().any(|end| name.ends_with(end))
}

/// Range of the password in `user:password@host`; `None` for a URL and for an address without password.
pub(super) fn address_password(value: &str) -> Option<(usize, usize)> {
    let at = value.rfind('@').filter(|_| !value.contains("://"))?;
    let colon = value[..at].find(':').filter(|colon| !value[..*colon].contains(MASK))?;
    (colon + 1 < at && &value[colon + 1..at] != MASK).then_some((colon + 1, at))
}

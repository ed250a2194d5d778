//! Names of options, variables and parameters whose value is a secret.
//!
//! A name is split into segments at punctuation and at camel case, because a substring is not enough:
//! `author`, `compass` and `tokenizer` are no secrets, `keyStorePassword` and `PGPASSWORD` are.

/// Result of [`classify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameKind {
    /// The value is not a secret.
    Harmless,
    /// The value is a secret unless it is an absolute path. The name needs `=` or an option, since such
    /// words are common before a colon.
    Weak,
    /// The value is a secret unless it is a number or an absolute path (`--seed`).
    Phrase,
    /// The value is a secret.
    Secret,
}

/// Segments that make a name secret at any position.
#[rustfmt::skip]
const SECRET_SEGMENTS: &[&str] = &[
    "authorization", "bearer", "pass", "passcode", "passphrase", "passwd", "password", "passwords", "psk",
    "secret", "secrets", "senha", "sessid", "sessionid", "signature", "token", "tokens", "пароль",
];

/// Segments that make a name secret only at its end, because they are also parts of harmless names.
#[rustfmt::skip]
const WEAK_SEGMENTS: &[&str] = &[
    "assertion", "auth", "basicauth", "cookie", "cookies", "credential", "credentials", "cred", "creds", "httpauth",
    "jwt", "masterauth", "otp", "pin", "private", "privkey", "proxyauth", "pw", "sas", "setcookie", "sig",
    "totp", "userauth",
];

/// Last segments of names of secret words, from which keys are derived. `--seed 42` is no secret.
const PHRASE_SEGMENTS: &[&str] = &["mnemonic", "seed"];

/// Parts of a secret name after its segments are joined. None of them is a part of another word.
#[rustfmt::skip]
const SECRET_PARTS: &[&str] = &[
    "accesskey", "accountkey", "apikey", "appkey", "authkey", "contrasena", "encryptionkey", "hmackey",
    "jwtkey", "kennwort", "licensekey", "masterkey", "motdepasse", "passphrase", "passwd", "password", "passwort", "presharedkey", "privatekey", "secretkey",
    "servicekey", "sessionkey", "sharedkey", "signingkey", "sonarlogin", "storagekey",
];

/// Ends of a segment that make a name secret (`requirepass`, `dbpwd`, `authtoken`).
#[rustfmt::skip]
const SECRET_ENDS: &[&str] = &[
    "adminpw", "apikey", "bindpw", "dbpw", "pass", "pwd", "rootpw", "secret", "sessid", "sessionid", "token",
    "userpw",
];

/// Words that end like a secret and are none.
#[rustfmt::skip]
const HARMLESS_WORDS: &[&str] = &[
    "allpass", "askpass", "bandpass", "bypass", "compass", "encompass", "firstpass", "highpass", "lowpass",
    "multipass", "onepass", "overpass", "singlepass", "surpass", "trespass", "twopass", "underpass",
];

/// Last segments of names that describe a secret instead of containing it (`--token-ttl`).
#[rustfmt::skip]
const HARMLESS_ENDS: &[&str] = &[
    "age", "algo", "algorithm", "audience", "cmd", "command", "count", "database", "days", "db", "dir",
    "directory", "disabled", "domain", "enabled", "encryption", "endpoint", "env", "expiration", "expires",
    "expiry",
    "fd", "file", "files", "folder", "format", "helper", "host", "hostname", "id", "interval", "issuer",
    "len", "length", "lifetime", "limit", "max", "mechanism", "method", "methods", "min", "mode", "path",
    "paths", "policy", "port", "program", "prompt", "provider", "realm", "required", "role", "scope",
    "server", "size", "sock", "socket", "source", "stdin", "timeout", "ttl", "type", "uri", "url", "user",
    "username", "version",
];

/// First segments of flags, which have no value (`--no-password`), and of quantities (`--max-tokens`).
#[rustfmt::skip]
const HARMLESS_STARTS: &[&str] = &[
    "allow", "ask", "batch", "disable", "enable", "max", "min", "n", "no", "num", "prompt", "show", "skip",
    "total", "without",
];

/// Decides whether the value of a name is a secret. Leading dashes are ignored.
pub(super) fn classify(name: &str) -> NameKind {
    let segments = segments(name);
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return NameKind::Harmless };
    let joined = segments.concat();
    let is_session = joined.ends_with("sessionid") || joined.ends_with("secretid");
    let is_file = ["file", "path", "dir"].iter().any(|end| last.ends_with(end));
    if (HARMLESS_STARTS.contains(&first.as_str()) && segments.len() > 1)
        || (!is_session && (is_file || HARMLESS_ENDS.contains(&last.as_str())))
    {
        return NameKind::Harmless;
    }
    // `PWD` alone is the password of a database driver or the working directory of a shell.
    let is_pwd = joined == "pwd" || joined == "oldpwd";
    let is_secret_segment = |segment: &String| {
        let segment = segment.as_str();
        SECRET_SEGMENTS.contains(&segment)
            || (SECRET_ENDS.iter().any(|end| segment.ends_with(end)) && !HARMLESS_WORDS.contains(&segment))
    };
    if is_session
        || (!is_pwd && segments.iter().any(is_secret_segment))
        || SECRET_PARTS.iter().any(|part| joined.contains(part))
    {
        return NameKind::Secret;
    }
    match last.as_str() {
        _ if is_pwd => NameKind::Weak,
        last if WEAK_SEGMENTS.contains(&last) => NameKind::Weak,
        last if PHRASE_SEGMENTS.contains(&last) => NameKind::Phrase,
        _ => NameKind::Harmless,
    }
}

/// Returns whether the value of a [`NameKind::Phrase`] can be a secret.
pub(super) fn is_phrase(value: &str) -> bool {
    let word = value.split(|c: char| c.is_whitespace() || ",;&)}".contains(c)).next().unwrap_or_default();
    !value.starts_with('/') && word.parse::<f64>().is_err() && !word.is_empty()
}

/// Returns whether a header of this name contains a key (`x-functions-key`).
pub(super) fn is_key_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["-key", "-token", "-secret"].iter().any(|end| name.ends_with(end)) && !name.contains("public")
}

/// Returns whether a header of this name contains spaces in its value, so that it has no other end than
/// that of the text.
pub(super) fn is_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("authorization") || name.ends_with("cookie")
}

/// Splits a name at punctuation and camel case, in lower case and without trailing digits.
fn segments(name: &str) -> Vec<String> {
    let mut segments = vec![String::new()];
    let characters: Vec<char> = name.chars().collect();
    for (index, &character) in characters.iter().enumerate() {
        let previous = index.checked_sub(1).map(|index| characters[index]);
        let is_next_lower = characters.get(index + 1).is_some_and(char::is_ascii_lowercase);
        let is_start = character.is_ascii_uppercase()
            && previous.is_some_and(|c| c.is_ascii_lowercase() || (c.is_ascii_uppercase() && is_next_lower));
        if is_start || !character.is_alphanumeric() {
            segments.push(String::new());
        }
        if character.is_alphanumeric()
            && let Some(last) = segments.last_mut()
        {
            last.push(character.to_ascii_lowercase());
        }
    }
    let trimmed = segments.iter().map(|segment| segment.trim_end_matches(|c: char| c.is_ascii_digit()));
    trimmed.filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_classified_by_segments() {
        for (names, expected) in [
            (
                "password --http-passwd PGPASSWORD MYSQL_PWD -Djavax.net.ssl.keyStorePassword userpass dbPass \
                 access_token X-Amz-Signature apiKey aws_secret_access_key client-secret password2 DBPassword \
                 requirepass AccountKey wifi-sec.psk PHPSESSID session_id passphrase X-Auth-Token tokens",
                NameKind::Secret,
            ),
            ("auth PWD OLDPWD sig --pin -pw cookie credentials otp -setcookie", NameKind::Weak),
            (
                "author authority passive compass tokenizer keyboard --no-password --password-file \
                 --token-ttl --max-tokens ssh_askpass SSH_AUTH_SOCK --auth-type passfile key --proxy-bypass-list \
                 pin-cpu session XDG_SESSION_TYPE monkey authenticationDatabase -- = host",
                NameKind::Harmless,
            ),
        ] {
            for name in names.split_whitespace() {
                assert_eq!(classify(name), expected, "{name}");
            }
        }
    }
}

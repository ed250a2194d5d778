//! Command lines of processes with secrets masked, for snapshots and captures.

use perfwatch_model::limits::MAX_COMMAND_CHARS;

/// Parts of argument names whose value is a secret (`--token VALUE`, `PASSWORD=VALUE`).
const SECRET_WORDS: &[&str] =
    &["pass", "pwd", "secret", "token", "apikey", "api-key", "api_key", "credential", "auth", "private"];

const MASK: &str = "***";

/// Joins the arguments of `/proc/PID/cmdline` with spaces, without masking.
pub(crate) fn unmasked(cmdline: &[u8]) -> String {
    truncate(&split_arguments(cmdline).join(" "))
}

/// Joins the arguments of `/proc/PID/cmdline` with spaces and replaces secrets by `***`.
pub(crate) fn mask_secrets(cmdline: &[u8]) -> String {
    let mut masked = Vec::new();
    let mut next_is_secret = false;
    for word in split_arguments(cmdline) {
        if std::mem::take(&mut next_is_secret) && !word.starts_with('-') {
            masked.push(MASK.to_owned());
            continue;
        }
        let separator = word.find(['=', ':']).filter(|&index| index > 0 && !word[index..].starts_with("://"));
        match separator {
            Some(end) if is_secret_name(&word[..end]) => masked.push(format!("{}{MASK}", &word[..=end])),
            _ => {
                next_is_secret = word.starts_with('-') && is_secret_name(&word);
                masked.push(mask_url_password(&word));
            }
        }
    }
    truncate(&masked.join(" "))
}

fn split_arguments(cmdline: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(cmdline);
    let clean = |word: &str| word.trim().replace(|c: char| c.is_control(), " ");
    text.split('\0').filter(|word| !word.trim().is_empty()).map(clean).collect()
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Masks the password of a URL: `postgres://user:password@host` → `postgres://user:***@host`.
fn mask_url_password(word: &str) -> String {
    let Some((scheme, remaining)) = word.split_once("://") else {
        return word.to_owned();
    };
    let authority_end = remaining.find('/').unwrap_or(remaining.len());
    let Some(at) = remaining[..authority_end].rfind('@') else {
        return word.to_owned();
    };
    match remaining[..at].find(':') {
        Some(colon) => format!("{scheme}://{}:{MASK}{}", &remaining[..colon], &remaining[at..]),
        None => word.to_owned(),
    }
}

fn truncate(command: &str) -> String {
    match command.char_indices().nth(MAX_COMMAND_CHARS) {
        Some((end, _)) => format!("{}…", &command[..end]),
        None => command.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        for (line, expected) in [
            ("mysqld\0--user=root\0--password=hunter2\0", "mysqld --user=root --password=***"),
            ("app\0--token\0abc\0--port\080\0", "app --token *** --port\080"),
            ("curl\0-u\0x\0API_KEY=abc\0", "curl -u x API_KEY=***"),
            ("psql\0postgres://bob:s3cret@db/x\0", "psql postgres://bob:***@db/x"),
            ("psql\0postgres://db/x:y@z\0", "psql postgres://db/x:y@z"),
            ("a\0--no-password\0--force\0", "a --no-password --force"),
            ("x\0Authorization: Bearer abc\0", "x Authorization:***"),
            ("", ""),
            ("\0\0", ""),
            ("line\nbreak\0", "line break"),
        ] {
            assert_eq!(mask_secrets(line.as_bytes()), expected.replace('\0', " "));
        }
        assert_eq!(unmasked(b"a\0--password=x\0"), "a --password=x");
        assert_eq!(unmasked("ä".repeat(500).as_bytes()).chars().count(), MAX_COMMAND_CHARS + 1);
    }
}

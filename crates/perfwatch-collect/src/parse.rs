//! Text parsing helpers shared by several collectors.

use crate::{CollectError, Source};

/// Reads a file as text; bytes that are not UTF-8 become U+FFFD.
pub(crate) fn text(source: &dyn Source, path: &str) -> Result<String, CollectError> {
    let mut bytes = Vec::new();
    source.read(path, &mut bytes).map_err(|error| CollectError::from_io(path, &error))?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Reads a file that contains a single number.
pub(crate) fn number<T: std::str::FromStr>(source: &dyn Source, path: &str) -> Result<T, CollectError> {
    let text = text(source, path)?;
    parse(path, text.trim())
}

/// Parses a number; the error contains the text.
pub(crate) fn parse<T: std::str::FromStr>(path: &str, word: &str) -> Result<T, CollectError> {
    word.parse().map_err(|_| parse_error(path, word))
}

/// Creates the error for text that does not have the documented format. The text is shortened to
/// 40 characters.
pub(crate) fn parse_error(path: &str, found: &str) -> CollectError {
    let short: String = found.chars().take(40).collect();
    CollectError::Failed(format!("{path}: unexpected value {short:?}"))
}

/// Splits a line into its first word and the remaining text.
pub(crate) fn first_word(line: &str) -> (&str, &str) {
    let line = line.trim_start();
    line.split_once([' ', '\t']).unwrap_or((line, ""))
}

/// Parses the unsigned integers of a line, up to the first other word.
pub(crate) fn numbers(line: &str) -> Vec<u64> {
    line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect()
}

/// Decodes octal escapes such as `\040`, with which proc_pid_mountinfo(5) writes spaces, tabs,
/// newlines and backslashes.
pub(crate) fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let octal = bytes
            .get(index + 1..index + 4)
            .filter(|d| bytes[index] == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        if let Some(digits) = octal {
            let value = digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
            out.push(u8::try_from(value).unwrap_or(b'?'));
            index += 4;
        } else {
            out.push(bytes[index]);
            index += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unescapes_octal_only() {
        for (word, expected) in
            [("/a\\040b", "/a b"), ("/a\\b", "/a\\b"), ("\\134", "\\"), ("\\04", "\\04"), ("\\777", "?")]
        {
            assert_eq!(unescape(word.as_bytes()), expected.as_bytes());
        }
    }
}

//! Characters that texts of hosts must not contain: a terminal, a log or a page would obey them.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns whether a character is a control character, or an invisible character that reorders, joins or hides the
/// text around it.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns whether a character must not occur in a text of several lines, such as a comment: a control character that
/// is no white space, or a character that reorders the text around it. Joiners of scripts and emoji are allowed.
pub fn is_unprintable(c: char) -> bool {
    (c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text without hidden characters: white space becomes a space, any other is written as its escape
/// (`\u{1b}`), so that texts that differ stay different.
pub fn printable(text: &str) -> Cow<'_, str> {
    // Most texts are ASCII, for which this is much faster.
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) || !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\r' => out.push(' '),
            c if is_hidden(c) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "{}", c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Like [`printable`], and shortened to a number of bytes.
pub fn printable_within(text: &str, max_bytes: usize) -> Cow<'_, str> {
    let mut text = printable(text);
    if text.len() > max_bytes {
        let end = text.floor_char_boundary(max_bytes);
        text.to_mut().truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding L8.
    #[test]
    fn hidden_characters_are_escaped() {
        for (text, expected) in [
            ("/mnt/dåta 1", "/mnt/dåta 1"),
            ("a\tb\nc", "a b c"),
            ("\x1b[31mred\x1b[0m", "\\u{1b}[31mred\\u{1b}[0m"),
            ("exe\u{202e}gpj.cmd", "exe\\u{202e}gpj.cmd"),
            ("web\u{200b}1", "web\\u{200b}1"),
            ("\u{9b}31m\u{7f}\u{0}", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("\u{2066}x\u{2069}\u{feff}\u{2028}", "\\u{2066}x\\u{2069}\\u{feff}\\u{2028}"),
        ] {
            assert_eq!(printable(text), expected);
            assert!(!printable(text).contains(is_hidden));
        }
        assert_eq!(printable_within("ab\x1b", 4), "ab\\u");
    }

    #[test]
    fn comments_have_lines_and_no_control_characters() {
        for text in ["line 1\r\n\tline 2", "👨\u{200d}👩\u{200d}👧", "می\u{200c}خواهم"] {
            assert!(!text.contains(is_unprintable), "{text}");
        }
        for text in ["\x1b[31m", "a\u{0}", "exe\u{202e}gpj", "\u{2066}x", "\u{9b}31m"] {
            assert!(text.contains(is_unprintable), "{text:?}");
        }
    }
}

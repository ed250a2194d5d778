//! Text from hosts on a terminal.

use std::borrow::Cow;

/// Returns text of a host or of another program without characters that control a terminal, each replaced
/// by U+FFFD. A process chooses its own name: escape sequences could change the title or clear the screen,
/// line breaks add rows, and bidirectional controls reorder the text of a row.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(is_terminal_control) {
        Cow::Owned(text.replace(is_terminal_control, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Returns true for C0, DEL and C1 controls, line and paragraph separators, and the bidirectional controls
/// of Unicode (UAX #9).
fn is_terminal_control(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_has_no_terminal_controls() {
        for (text, expected) in [
            ("nginx: worker ä 漢", "nginx: worker ä 漢"),
            ("\x1b[31mred\x1b]0;t\x07", "\u{fffd}[31mred\u{fffd}]0;t\u{fffd}"),
            ("a\r\n\tb\x7f", "a\u{fffd}\u{fffd}\u{fffd}b\u{fffd}"),
            ("\u{9b}2J\u{85}", "\u{fffd}2J\u{fffd}"),
            ("a\u{202e}b\u{2066}c\u{2028}", "a\u{fffd}b\u{fffd}c\u{fffd}"),
        ] {
            assert_eq!(printable(text), expected);
        }
    }
}

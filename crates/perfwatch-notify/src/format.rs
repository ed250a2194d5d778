//! Text limits and color shared by several channels.

use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::RenderedNotification;
use unicode_segmentation::UnicodeSegmentation as _;

/// Text that marks a shortened text.
const ELLIPSIS: &str = "…";
/// Maximum number of characters of a grapheme that is kept whole: any number of accents may follow a
/// letter.
const MAX_GRAPHEME_CHARS: usize = 32;

/// Maximum length of a text, counted as the receiving service counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextLimit {
    /// Bytes of UTF-8.
    Bytes(usize),
    /// Bytes of UTF-8 inside of a JSON string, where quotes and line breaks take two bytes.
    JsonBytes(usize),
    /// UTF-16 code units, the length of a string in Java, JavaScript and C#. Also used where a service
    /// does not say how it counts: no other count of characters is larger.
    Utf16(usize),
    /// Unicode code points.
    Chars(usize),
}

impl TextLimit {
    fn max(self) -> usize {
        match self {
            Self::Bytes(max) | Self::JsonBytes(max) | Self::Utf16(max) | Self::Chars(max) => max,
        }
    }

    /// Length of a text in the unit of the limit.
    pub(crate) fn count(self, text: &str) -> usize {
        match self {
            Self::Bytes(_) => text.len(),
            Self::JsonBytes(_) => text.chars().map(json_len).sum(),
            Self::Utf16(_) => text.encode_utf16().count(),
            Self::Chars(_) => text.chars().count(),
        }
    }
}

/// Length of a character in a JSON string in bytes.
fn json_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => c.len_utf8(),
    }
}

/// Shortens a text to a limit; a shortened text ends with an ellipsis. Characters that are shown as one,
/// such as a flag or a letter with accents, are kept whole.
pub(crate) fn truncate(text: &str, limit: TextLimit) -> String {
    truncate_escaped(text, limit, str::to_owned)
}

/// Escapes a text and shortens it to a limit, which applies to the escaped text. The escape of a
/// character is never cut.
pub(crate) fn truncate_escaped(text: &str, limit: TextLimit, escape: impl Fn(&str) -> String) -> String {
    let escaped = escape(text);
    if limit.count(&escaped) <= limit.max() {
        return escaped;
    }
    let Some(mut available) = limit.max().checked_sub(limit.count(ELLIPSIS)) else { return String::new() };
    let mut out = String::new();
    let graphemes = text.graphemes(true).flat_map(|grapheme| {
        let is_short = grapheme.chars().nth(MAX_GRAPHEME_CHARS).is_none();
        let chars = grapheme.split_inclusive(|_| true);
        // Either the grapheme or its characters.
        std::iter::once(grapheme).filter(move |_| is_short).chain(chars.filter(move |_| !is_short))
    });
    for part in graphemes {
        let part = escape(part);
        let Some(rest) = available.checked_sub(limit.count(&part)) else { break };
        available = rest;
        out.push_str(&part);
    }
    out + ELLIPSIS
}

/// RGB color of the severity; green for a resolved incident, blue for a test.
pub(crate) fn severity_color(rendered: &RenderedNotification<'_>) -> u32 {
    match (rendered.notification.reason, rendered.notification.severity) {
        (NotificationReason::Resolved, _) => 0x2e_9e_5b,
        (NotificationReason::Test, _) | (_, Severity::Info) => 0x3b_82_f6,
        (_, Severity::Warning) => 0xd9_8e_04,
        (_, Severity::Critical) => 0xd1_34_38,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shortened_as_the_service_counts() {
        for (text, limit, expected) in [
            ("", TextLimit::Chars(3), ""),
            ("äöü", TextLimit::Chars(3), "äöü"),
            ("äöüß", TextLimit::Chars(3), "äö…"),
            ("äöü", TextLimit::Bytes(6), "äöü"),
            ("äöüß", TextLimit::Bytes(7), "äö…"),
            ("äöüß", TextLimit::Bytes(6), "ä…"),
            ("äöü", TextLimit::Bytes(2), ""),
            ("😀😀😀", TextLimit::Utf16(6), "😀😀😀"),
            ("😀😀😀", TextLimit::Utf16(5), "😀😀…"),
            ("😀😀😀", TextLimit::Utf16(4), "😀…"),
            ("😀😀😀", TextLimit::Chars(3), "😀😀😀"),
            ("a\"b\nc", TextLimit::JsonBytes(7), "a\"b\nc"),
            ("a\"b\nc", TextLimit::JsonBytes(6), "a\"…"),
            ("\u{1}\u{1}\u{1}", TextLimit::JsonBytes(17), "\u{1}\u{1}…"),
            // A flag, a family and a letter with an accent are one grapheme each.
            ("a🇩🇪🇫🇷", TextLimit::Utf16(8), "a🇩🇪…"),
            ("a👩‍👩‍👧b", TextLimit::Utf16(8), "a…"),
            ("ae\u{301}e\u{301}", TextLimit::Chars(4), "ae\u{301}…"),
        ] {
            let short = truncate(text, limit);
            assert_eq!(short, expected, "{text:?} {limit:?}");
            assert!(limit.count(&short) <= limit.max(), "{text:?} {limit:?}");
        }
        let accents = format!("e{}", "\u{301}".repeat(100));
        assert_eq!(truncate(&accents, TextLimit::Chars(50)).chars().count(), 50);
    }

    #[test]
    fn escapes_are_never_cut() {
        let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
        for max in 0..19 {
            let short = truncate_escaped("a&b<c&😀", TextLimit::Utf16(max), escape);
            let whole =
                ["", "…", "a…", "a&amp;…", "a&amp;b…", "a&amp;b&lt;…", "a&amp;b&lt;c…", "a&amp;b&lt;c&amp;…"];
            assert!(whole.contains(&short.as_str()) && short.encode_utf16().count() <= max, "{max} {short}");
        }
    }
}

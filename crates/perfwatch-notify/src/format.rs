//! Text length and color shared by several channels.

use perfwatch_rules::Severity;
use perfwatch_rules::incident::NotificationReason;
use perfwatch_rules::notification::RenderedNotification;

/// Shortens a text to `max_chars` characters; a shortened text ends with an ellipsis.
pub(crate) fn truncate(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars.saturating_sub(1)) {
        Some((index, last)) if index + last.len_utf8() < text.len() => format!("{}…", &text[..index]),
        _ => text.to_owned(),
    }
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

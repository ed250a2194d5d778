//! Last row: the prompt, a message, or the most important keys.

use super::painter::{MIN_SIZE, Painter};
use crate::view::{PromptKind, View};
use ratatui::layout::Position;
use ratatui::style::Style;

/// Keys of the last row, most important first.
const HINTS: [(&str, &str); 9] = [
    ("q", "quit"),
    ("?", "help"),
    ("←→", "step"),
    ("PgUp PgDn", "jump"),
    ("g", "time"),
    ("l", "live"),
    ("/", "filter"),
    ("s", "sort"),
    ("Space", "pause"),
];

/// Draws the row. Returns the position of the cursor if a prompt is open.
pub(super) fn draw(view: &View, painter: &mut Painter<'_>, row: u16) -> Option<Position> {
    let area = painter.area();
    if let Some(prompt) = &view.prompt {
        let label = match prompt.kind {
            PromptKind::Filter => "Filter: ",
            PromptKind::Time => "Go to time: ",
        };
        let start = painter.text(area.x, row, label, painter.theme.bold());
        // The end of a long text remains visible.
        let width = usize::from(area.right().saturating_sub(start + 1));
        let text = super::resources::shorten(&prompt.text, width);
        let end = painter.text(start, row, &text, Style::new());
        match (&view.notice, prompt.kind, prompt.text.is_empty()) {
            (Some(notice), ..) => painter.text(end + 2, row, notice, painter.theme.warning()),
            (None, PromptKind::Time, true) => {
                painter.text(end + 2, row, crate::time_input::EXPECTED, painter.theme.dim())
            }
            _ => end,
        };
        return Some(Position::new(end.min(area.right().saturating_sub(1)), row));
    }
    if let Some(message) = view.notice.as_ref().or(view.failure.as_ref()) {
        painter.text(area.x, row, message, painter.theme.warning());
        return None;
    }
    if area.width < MIN_SIZE.0 || area.height < MIN_SIZE.1 {
        let (width, height) = MIN_SIZE;
        let text = format!("{}×{} is small: {width}×{height} shows more · q quit", area.width, area.height);
        painter.text(area.x, row, &text, painter.theme.dim());
        return None;
    }
    let mut x = area.x;
    for (key, action) in HINTS {
        let width = u16::try_from(key.chars().count() + action.chars().count() + 1).unwrap_or(u16::MAX);
        if x + width > area.right() {
            break;
        }
        x = painter.text(x, row, key, painter.theme.bold());
        x = painter.text(x + 1, row, action, painter.theme.dim()) + 2;
    }
    None
}

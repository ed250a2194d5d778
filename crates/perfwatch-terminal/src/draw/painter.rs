//! Writing of text into a screen buffer, clipped to its area and without control characters.

use crate::theme::Theme;
use perfwatch_model::printable::printable;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Size below which the screen is incomplete.
pub(crate) const MIN_SIZE: (u16, u16) = (80, 24);
/// Width from which cores have bars.
pub(super) const MIN_WIDE_WIDTH: u16 = 120;
/// Width from which disks, file systems and interfaces have tables beside each other.
pub(super) const MIN_TABLES_WIDTH: u16 = 150;
/// Column at which the values of a labeled row start.
pub(super) const LABEL_LEN: u16 = 8;
/// Characters of a horizontal bar by eighths.
const BAR_PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
/// Characters of a vertical bar by eighths; zero is visible.
const LEVELS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// Buffer with its theme.
pub(super) struct Painter<'a> {
    buffer: &'a mut Buffer,
    pub(super) theme: Theme,
}

impl<'a> Painter<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, theme: Theme) -> Self {
        Self { buffer, theme }
    }

    pub(super) fn area(&self) -> Rect {
        self.buffer.area
    }

    /// Writes a text up to the end of the row. Returns the column after the text.
    pub(super) fn text(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16 {
        self.text_within(x, y, u16::MAX, text, style)
    }

    /// Writes at most `width` columns of a text. Returns the column after the text.
    pub(super) fn text_within(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
        let area = self.buffer.area;
        if x >= area.right() || y >= area.bottom() {
            return x;
        }
        let width = width.min(area.right() - x);
        self.buffer.set_stringn(x, y, printable(text), usize::from(width), style).0
    }

    /// Writes the label of a row.
    pub(super) fn label(&mut self, y: u16, label: &str) -> u16 {
        let style = self.theme.label();
        let x = self.area().x;
        self.text_within(x, y, LABEL_LEN - 1, label, style);
        x + LABEL_LEN
    }

    /// Sets the style of a whole row.
    pub(super) fn style_row(&mut self, y: u16, style: Style) {
        let area = self.buffer.area;
        self.buffer.set_style(Rect { y, height: 1, ..area }.intersection(area), style);
    }

    /// Draws a bar of a percentage with brackets. Returns the column after the bar.
    pub(super) fn meter(&mut self, x: u16, y: u16, width: u16, percent: f64) -> u16 {
        let inner = width.saturating_sub(2);
        let style = self.theme.level(percent);
        self.text(x, y, "[", self.theme.dim());
        let eighths = eighths(percent, usize::from(inner));
        let bar = format!("{}{}", "█".repeat(eighths / 8), BAR_PARTS[eighths % 8]);
        self.text_within(x + 1, y, inner, &bar, style);
        self.text(x + 1 + inner, y, "]", self.theme.dim())
    }

    /// Draws a vertical bar of a percentage in one column.
    pub(super) fn level(&mut self, x: u16, y: u16, percent: f64, style: Style) {
        self.text_within(x, y, 1, level_symbol(percent), style);
    }
}

/// Filled eighths of a bar of `width` columns.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "clamped"
)]
fn eighths(percent: f64, width: usize) -> usize {
    (percent.clamp(0.0, 100.0) / 100.0 * (width * 8) as f64).round() as usize
}

/// Character of a vertical bar.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn level_symbol(percent: f64) -> &'static str {
    LEVELS[(percent.clamp(0.0, 100.0) / 100.0 * 7.0).round() as usize]
}

//! Ribbon of the flight recorder: usage over a time range with the displayed time.

use super::painter::{LABEL_LEN, Painter};
use crate::time_input::format_time;
use crate::view::{View, ViewMode};
use perfwatch_model::HumanDuration;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

/// Width of the range at the end of the axis.
const RANGE_LEN: u16 = 5;

fn lane_width(painter: &Painter<'_>) -> u16 {
    painter.area().width.saturating_sub(LABEL_LEN + RANGE_LEN)
}

/// Column of the displayed time within the lane.
fn playhead(view: &View, width: u16) -> Option<usize> {
    let frame = view.frame.as_ref()?;
    // A live snapshot may be newer than the ribbon.
    let at_ms = match view.mode {
        ViewMode::Live => frame.at_ms().min(view.ribbon.to_ms),
        _ => frame.at_ms(),
    };
    view.ribbon.column(at_ms, usize::from(width))
}

pub(super) fn draw_lane(view: &View, painter: &mut Painter<'_>, row: u16, label: &str, lane: &[Option<f64>]) {
    let start = painter.label(row, label);
    let width = lane_width(painter);
    let playhead = playhead(view, width);
    let columns = view.ribbon.columns(lane, usize::from(width));
    for ((x, index), column) in (start..).zip(0_usize..).zip(columns) {
        let marker = if playhead == Some(index) { Modifier::REVERSED } else { Modifier::empty() };
        match column {
            Some(percent) => {
                let style = painter.theme.level(percent).add_modifier(marker);
                painter.level(x, row, percent, style);
            }
            None => {
                painter.text(x, row, " ", Style::new().add_modifier(marker));
            }
        }
    }
    let range = HumanDuration::from_ms(view.ribbon_range_ms()).to_string();
    painter.text(start + width + 1, row, &range, painter.theme.dim());
}

pub(super) fn draw_axis(view: &View, painter: &mut Painter<'_>, row: u16) {
    let area = painter.area();
    let (start, width) = (area.x + LABEL_LEN, lane_width(painter));
    let ribbon = &view.ribbon;
    if ribbon.from_ms == ribbon.to_ms {
        return;
    }
    let time = |at_ms| format_time(at_ms, view.now_ms, &view.zone);
    let (from, to) = (time(ribbon.from_ms), time(ribbon.to_ms));
    let to_width = u16::try_from(Span::raw(to.as_str()).width()).unwrap_or(u16::MAX);
    let dim = painter.theme.dim();
    painter.text_within(start, row, width, &from, dim);
    if from.len() + to.len() + 4 < usize::from(width) {
        // The last column belongs to the marker of a live view.
        painter.text((start + width).saturating_sub(to_width + 2), row, &to, dim);
    }
    if let Some(column) = playhead(view, width) {
        let x = start + u16::try_from(column).unwrap_or(u16::MAX);
        painter.text_within(x, row, 1, "▲", painter.theme.bold());
    }
}

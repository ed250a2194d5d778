//! First row: host, and state of the displayed time.

use super::painter::Painter;
use super::resources::value;
use crate::time_input::format_time;
use crate::view::{View, ViewMode};
use perfwatch_model::value_format::format_duration;
use ratatui::style::Style;
use ratatui::text::Span;

pub(super) fn draw(view: &View, painter: &mut Painter<'_>, row: u16) {
    let area = painter.area();
    let (state, style) = state(view, painter);
    let width = u16::try_from(Span::raw(state.as_str()).width()).unwrap_or(u16::MAX).min(area.width);
    painter.text(area.right() - width, row, &state, style);
    let remaining = area.width - width;
    let end = painter.text_within(area.x, row, remaining.saturating_sub(1), &view.host, painter.theme.bold());
    let details = details(view);
    painter.text_within(end, row, (area.x + remaining).saturating_sub(end + 1), &details, Style::new());
}

/// Facts of the host and the time since its start.
fn details(view: &View) -> String {
    let mut details = String::new();
    if let Some(facts) = &view.facts {
        details.push_str(&format!(" · {} · {} cores", facts.os, facts.cores));
    }
    if let Some(uptime) = value(view, "system.uptime") {
        details.push_str(&format!(" · up {}", format_duration(uptime)));
    }
    details
}

/// Text and style of the state.
fn state(view: &View, painter: &Painter<'_>) -> (String, Style) {
    let theme = painter.theme;
    let (text, is_attention) = describe_state(view);
    let style = match view.mode {
        _ if is_attention => theme.warning(),
        ViewMode::Live => theme.live(),
        ViewMode::Paused | ViewMode::Past => theme.past(),
    };
    (format!(" {text} "), style)
}

/// State in words, and whether the values are old although they should be live.
pub(crate) fn describe_state(view: &View) -> (String, bool) {
    let Some(frame) = &view.frame else {
        return (if view.failure.is_some() { "RECONNECTING" } else { "STARTING" }.to_owned(), false);
    };
    let time = format_time(frame.at_ms(), view.now_ms, &view.zone);
    let age = || format_duration(whole_seconds(view.age_ms()));
    let average = match frame.is_rolled_up {
        true => format!(" · {} averages", format_duration(whole_seconds(frame.resolution_ms))),
        false => String::new(),
    };
    match view.mode {
        ViewMode::Live if view.failure.is_some() => (format!("RECONNECTING · {time}"), true),
        ViewMode::Live if view.is_stale() => (format!("NO DATA for {} · {time}", age()), true),
        ViewMode::Live => (format!("LIVE {time}"), false),
        ViewMode::Paused => (format!("PAUSED {time} · {} behind", age()), false),
        ViewMode::Past => (format!("PAST {time} · {} ago{average}", age()), false),
    }
}

#[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53 seconds")]
fn whole_seconds(ms: i64) -> f64 {
    (ms / 1_000) as f64
}

//! Transitions of the view: keys and snapshots, with the effects that they produce.

use crate::frame::{HostFrame, Ribbon};
use crate::process_table::ProcessOrder;
use crate::source::{SeekTarget, SourceRequest, SourceUpdate};
use crate::test_data::{NOW_MS, frame_at};
use crate::view::{Key, View, ViewEffect, ViewEvent, ViewMode};
use jiff::tz::TimeZone;

fn live_view() -> View {
    let mut view = View::new("web-1", NOW_MS, TimeZone::UTC);
    receive(&mut view, SourceUpdate::Live(frame_at(NOW_MS)));
    let (from_ms, to_ms) = (NOW_MS - 900_000, NOW_MS);
    receive(&mut view, SourceUpdate::Ribbon(Ok(Ribbon { from_ms, to_ms, ..Ribbon::default() })));
    view
}

fn receive(view: &mut View, update: SourceUpdate) -> Vec<ViewEffect> {
    view.reduce(ViewEvent::Source(update))
}

fn press(view: &mut View, key: Key) -> Vec<ViewEffect> {
    view.reduce(ViewEvent::Key(key))
}

fn enter(view: &mut View, text: &str) -> Vec<ViewEffect> {
    for c in text.chars() {
        assert_eq!(press(view, Key::Char(c)), []);
    }
    press(view, Key::Enter)
}

fn seek_at(at_ms: i64) -> ViewEffect {
    ViewEffect::Request(SourceRequest::Seek(SeekTarget::At(at_ms)))
}

fn seek_step(from_ms: i64, count: i32) -> ViewEffect {
    ViewEffect::Request(SourceRequest::Seek(SeekTarget::Step { from_ms, count }))
}

fn ribbon(from_ms: i64, to_ms: i64) -> ViewEffect {
    ViewEffect::Request(SourceRequest::Ribbon { from_ms, to_ms })
}

fn displayed(view: &View) -> (ViewMode, i64) {
    (view.mode, view.frame.as_ref().map_or(0, HostFrame::at_ms))
}

#[test]
fn live_snapshots_are_displayed_and_refresh_the_ribbon() {
    let mut view = View::new("web-1", NOW_MS, TimeZone::UTC);
    let effects = receive(&mut view, SourceUpdate::Live(frame_at(NOW_MS)));
    assert_eq!(effects, [ribbon(NOW_MS - 900_000, NOW_MS)]);
    let mut view = live_view();
    assert_eq!(receive(&mut view, SourceUpdate::Live(frame_at(NOW_MS + 1_000))), []);
    assert_eq!(displayed(&view), (ViewMode::Live, NOW_MS + 1_000));
    let effects = receive(&mut view, SourceUpdate::Live(frame_at(NOW_MS + 9_000)));
    assert_eq!(effects, [ribbon(NOW_MS - 891_000, NOW_MS + 9_000)]);
}

#[test]
fn arrows_step_and_combine_while_a_seek_is_in_progress() {
    let mut view = live_view();
    assert_eq!(press(&mut view, Key::Right), []);
    assert_eq!(press(&mut view, Key::Left), [seek_step(NOW_MS, -1)]);
    assert_eq!((press(&mut view, Key::Left), press(&mut view, Key::Left)), (vec![], vec![]));
    let target = SeekTarget::Step { from_ms: NOW_MS, count: -1 };
    let effects = receive(&mut view, SourceUpdate::Seek(target, Ok(Some(frame_at(NOW_MS - 2_000)))));
    assert_eq!(effects, [seek_step(NOW_MS - 2_000, -2)]);
    assert_eq!(displayed(&view), (ViewMode::Past, NOW_MS - 2_000));
    // Live snapshots do not change an earlier time.
    assert_eq!(receive(&mut view, SourceUpdate::Live(frame_at(NOW_MS + 1_000))), []);
    assert_eq!(displayed(&view), (ViewMode::Past, NOW_MS - 2_000));
}

#[test]
fn step_after_the_newest_snapshot_returns_to_live() {
    let mut view = live_view();
    press(&mut view, Key::Left);
    let back = SeekTarget::Step { from_ms: NOW_MS, count: -1 };
    receive(&mut view, SourceUpdate::Seek(back, Ok(Some(frame_at(NOW_MS - 2_000)))));
    assert_eq!(press(&mut view, Key::Right), [seek_step(NOW_MS - 2_000, 1)]);
    let forward = SeekTarget::Step { from_ms: NOW_MS - 2_000, count: 1 };
    receive(&mut view, SourceUpdate::Seek(forward, Ok(None)));
    assert_eq!(displayed(&view), (ViewMode::Live, NOW_MS));
}

#[test]
fn page_keys_jump_by_a_tenth_of_the_ribbon() {
    let mut view = live_view();
    assert_eq!(press(&mut view, Key::PageDown), []);
    assert_eq!(press(&mut view, Key::PageUp), [seek_at(NOW_MS - 90_000)]);
    assert_eq!(press(&mut view, Key::PageUp), []);
    let target = SeekTarget::At(NOW_MS - 90_000);
    let effects = receive(&mut view, SourceUpdate::Seek(target, Ok(Some(frame_at(NOW_MS - 90_000)))));
    assert_eq!(effects, [seek_at(NOW_MS - 180_000)]);
    let target = SeekTarget::At(NOW_MS - 180_000);
    receive(&mut view, SourceUpdate::Seek(target, Ok(Some(frame_at(NOW_MS - 180_000)))));
    assert_eq!(press(&mut view, Key::Char('-')), [ribbon(NOW_MS - 3_600_000, NOW_MS)]);
    press(&mut view, Key::PageDown);
    assert_eq!(displayed(&view).0, ViewMode::Live);
}

#[test]
fn typed_times_are_sought_and_errors_leave_the_prompt_open() {
    let mut view = live_view();
    press(&mut view, Key::Char('g'));
    assert_eq!(enter(&mut view, "-1h"), [seek_at(NOW_MS - 3_600_000)]);
    let target = SeekTarget::At(NOW_MS - 3_600_000);
    let effects = receive(&mut view, SourceUpdate::Seek(target, Ok(Some(frame_at(NOW_MS - 3_601_000)))));
    // Outside the ribbon, which is read around the time.
    assert_eq!(effects, [ribbon(NOW_MS - 3_601_000 - 450_000, NOW_MS - 3_601_000 + 450_000)]);
    press(&mut view, Key::Char('g'));
    assert_eq!(enter(&mut view, "soon"), []);
    assert!(view.prompt.is_some() && view.notice.as_ref().unwrap().contains("invalid time \"soon\""));
    press(&mut view, Key::Clear);
    enter(&mut view, "now");
    assert_eq!(displayed(&view), (ViewMode::Live, NOW_MS));
}

#[test]
fn missing_history_is_reported_and_the_display_unchanged() {
    let mut view = live_view();
    press(&mut view, Key::Char('g'));
    enter(&mut view, "-2d");
    let target = SeekTarget::At(NOW_MS - 2 * 86_400_000);
    receive(&mut view, SourceUpdate::Seek(target, Ok(None)));
    assert!(
        view.notice.as_ref().unwrap().starts_with("no data in the hour before 2026-"),
        "{:?}",
        view.notice
    );
    assert_eq!(displayed(&view), (ViewMode::Live, NOW_MS));
    press(&mut view, Key::Char('g'));
    enter(&mut view, "-2d");
    receive(&mut view, SourceUpdate::Seek(target, Err("connection refused".to_owned())));
    assert_eq!(view.notice.as_deref(), Some("connection refused"));
    // A start time without data, before the first live snapshot.
    let mut view = View::new("web-1", NOW_MS, TimeZone::UTC);
    view.go_to(NOW_MS - 1);
    receive(&mut view, SourceUpdate::Seek(SeekTarget::At(NOW_MS - 1), Ok(None)));
    assert_eq!(view.mode, ViewMode::Live);
}

#[test]
fn space_pauses_and_continues() {
    let mut view = live_view();
    press(&mut view, Key::Char(' '));
    receive(&mut view, SourceUpdate::Live(frame_at(NOW_MS + 2_000)));
    assert_eq!(displayed(&view), (ViewMode::Paused, NOW_MS));
    assert_eq!(view.age_ms(), 2_000);
    press(&mut view, Key::Char(' '));
    assert_eq!(displayed(&view), (ViewMode::Live, NOW_MS + 2_000));
}

#[test]
fn result_of_a_seek_is_ignored_after_return_to_live() {
    let mut view = live_view();
    press(&mut view, Key::Left);
    press(&mut view, Key::Char('l'));
    let target = SeekTarget::Step { from_ms: NOW_MS, count: -1 };
    assert_eq!(receive(&mut view, SourceUpdate::Seek(target, Ok(Some(frame_at(NOW_MS - 2_000))))), []);
    assert_eq!(displayed(&view), (ViewMode::Live, NOW_MS));
    assert_eq!(press(&mut view, Key::Left), [seek_step(NOW_MS, -1)]);
}

#[test]
fn failure_is_displayed_until_the_next_snapshot() {
    let mut view = live_view();
    receive(&mut view, SourceUpdate::Failed("connection refused".to_owned()));
    view.reduce(ViewEvent::Time(NOW_MS + 60_000));
    assert!(view.failure.is_some() && view.is_stale());
    receive(&mut view, SourceUpdate::Live(frame_at(NOW_MS + 61_000)));
    assert!(view.failure.is_none() && !view.is_stale());
}

#[test]
fn filter_applies_while_typed_and_escape_clears() {
    let mut view = live_view();
    press(&mut view, Key::Char('/'));
    press(&mut view, Key::Char('q'));
    press(&mut view, Key::Char('?'));
    assert_eq!((view.filter.as_str(), view.is_help_open), ("q?", false));
    press(&mut view, Key::Backspace);
    press(&mut view, Key::Enter);
    assert_eq!((view.filter.as_str(), view.prompt.is_none()), ("q", true));
    press(&mut view, Key::Escape);
    assert_eq!(view.filter, "");
    press(&mut view, Key::Char('/'));
    for _ in 0..1_000 {
        press(&mut view, Key::Char('x'));
    }
    assert_eq!(view.filter.len(), 100);
}

#[test]
fn table_keys_sort_and_scroll_within_the_rows() {
    let mut view = live_view();
    let count = view.rows().len();
    assert!(count > 2);
    for _ in 0..100 {
        press(&mut view, Key::Down);
    }
    assert_eq!(view.scroll, count - 1);
    press(&mut view, Key::Up);
    assert_eq!(view.scroll, count - 2);
    press(&mut view, Key::Char('s'));
    assert_eq!((view.order, view.scroll), (ProcessOrder::Memory, 0));
    press(&mut view, Key::Char('p'));
    press(&mut view, Key::Char('r'));
    let pids: Vec<u32> = view.rows().iter().map(|row| row.pid).collect();
    assert!(pids.is_sorted_by(|a, b| a > b), "{pids:?}");
}

#[test]
fn quit_keys_end_the_view_in_every_state() {
    let mut view = live_view();
    assert_eq!(press(&mut view, Key::Char('?')), []);
    assert_eq!(press(&mut view, Key::Char('x')), []);
    assert!(!view.is_help_open);
    press(&mut view, Key::Char('?'));
    assert_eq!(press(&mut view, Key::Char('q')), [ViewEffect::Quit]);
    press(&mut view, Key::Char('/'));
    assert_eq!(press(&mut view, Key::Interrupt), [ViewEffect::Quit]);
    assert_eq!(press(&mut view, Key::Suspend), [ViewEffect::Suspend]);
}

//! Golden screens at several sizes. `UPDATE_GOLDEN=1` writes them.

use crate::draw::draw;
use crate::run::row_text;
use crate::source::{SeekTarget, SourceUpdate};
use crate::test_data::{NOW_MS, frame_at, ribbon_until};
use crate::theme::Theme;
use crate::view::{Key, View, ViewEvent};
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use std::path::Path;

const PLAIN: Theme = Theme { has_color: false, has_unicode: true };
const COLOR: Theme = Theme { has_color: true, has_unicode: true };
const ASCII: Theme = Theme { has_color: false, has_unicode: false };

fn view() -> View {
    let mut view = View::new("web-1", NOW_MS, TimeZone::UTC);
    view.reduce(ViewEvent::Source(SourceUpdate::Live(frame_at(NOW_MS))));
    view.reduce(ViewEvent::Source(SourceUpdate::Ribbon(Ok(ribbon_until(NOW_MS)))));
    view
}

/// View of an earlier time.
fn past_view() -> View {
    let mut view = view();
    let at_ms = NOW_MS - 700_000;
    view.go_to(at_ms);
    view.reduce(ViewEvent::Source(SourceUpdate::Seek(SeekTarget::At(at_ms), Ok(Some(frame_at(at_ms))))));
    view
}

fn render(view: &View, theme: Theme, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            draw(view, theme, frame.buffer_mut());
        })
        .unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    (0..buffer.area.height).map(|row| row_text(buffer, row) + "\n").collect()
}

fn assert_golden(name: &str, screen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, screen).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == screen, "{name} differs; UPDATE_GOLDEN=1 writes it:\n{screen}");
}

#[test]
fn screens_match_golden_files() {
    let mut filtered = past_view();
    for key in [Key::Char('m'), Key::Char('/'), Key::Char('a'), Key::Char('p'), Key::Char('p')] {
        filtered.reduce(ViewEvent::Key(key));
    }
    let mut help = view();
    help.reduce(ViewEvent::Key(Key::Char('?')));
    let mut failed = view();
    failed.reduce(ViewEvent::Source(SourceUpdate::Failed("http://hub:8000: connection refused".to_owned())));
    for (name, view, theme, size) in [
        ("live-80x24.txt", view(), PLAIN, (80, 24)),
        ("live-200x60.txt", view(), PLAIN, (200, 60)),
        ("live-ascii-80x24.txt", view(), ASCII, (80, 24)),
        ("live-40x12.txt", view(), PLAIN, (40, 12)),
        ("past-80x24.txt", past_view(), PLAIN, (80, 24)),
        ("filter-120x40.txt", filtered, PLAIN, (120, 40)),
        ("failed-80x24.txt", failed, PLAIN, (80, 24)),
        ("help-80x24.txt", help, PLAIN, (80, 24)),
        ("starting-80x24.txt", View::new("web-1", NOW_MS, TimeZone::UTC), PLAIN, (80, 24)),
    ] {
        assert_golden(name, &text(&render(&view, theme, size)));
    }
}

#[test]
fn screens_of_every_size_have_no_controls() {
    let views = [view(), past_view(), View::new("web\u{1b}[2J", NOW_MS, TimeZone::UTC)];
    for view in &views {
        for width in [1, 2, 7, 8, 9, 13, 40, 79, 80, 100, 119, 120, 131, 200, 300] {
            for height in [1, 2, 3, 4, 5, 9, 24, 60, 100] {
                let buffer = render(view, PLAIN, (width, height));
                let has_control = buffer
                    .content
                    .iter()
                    .any(|cell| cell.symbol().contains(perfwatch_model::printable::is_hidden));
                assert!(!has_control, "{width}×{height}");
            }
        }
    }
}

#[test]
fn screen_without_unicode_is_ascii() {
    assert!(text(&render(&past_view(), ASCII, (200, 60))).is_ascii());
}

#[test]
fn colors_are_used_only_if_supported() {
    let has_color = |theme: Theme| {
        let buffer = render(&past_view(), theme, (120, 40));
        buffer.content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(has_color(COLOR) && !has_color(PLAIN));
    // Without colors, attention is bold.
    let buffer = render(&view(), PLAIN, (80, 24));
    let row = (0..24).find(|row| row_text(&buffer, *row).contains("java -Xmx8g")).unwrap();
    let cpu = (0..80).find(|x| buffer[(*x, row)].symbol() == "8" && *x > 20).unwrap();
    assert!(buffer[(cpu, row)].modifier.contains(Modifier::BOLD));
}

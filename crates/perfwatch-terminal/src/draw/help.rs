//! Help: all keys.

use super::painter::Painter;
use ratatui::style::Style;

/// Keys with their actions, in groups.
pub(crate) const KEYS: [(&str, &[(&str, &str)]); 4] = [
    (
        "Time",
        &[
            ("← →", "previous, next snapshot"),
            ("PgUp PgDn", "jump back, forward by a tenth of the ribbon"),
            ("+ -", "shorter, longer range of the ribbon"),
            ("g", "go to a time: -1h, 14:30, yesterday 14:30"),
            ("l", "live"),
            ("Space", "pause, continue"),
        ],
    ),
    (
        "Processes",
        &[
            ("s", "next order: CPU, memory, I/O, name, PID"),
            ("c m i n p", "sort by CPU, memory, I/O, name, PID"),
            ("r", "reverse the order"),
            ("/", "filter by name, command line, user or PID; Esc clears"),
            ("↑ ↓ Home End", "scroll"),
        ],
    ),
    ("Screen", &[("Ctrl-L", "draw again"), ("Ctrl-Z", "suspend"), ("?", "this help"), ("q Ctrl-C", "quit")]),
    ("Values", &[("yellow, red", "75 % and 90 %"), ("ribbon", "an empty column has no data")]),
];

pub(super) fn draw(painter: &mut Painter<'_>, first: u16, last: u16) {
    let x = painter.area().x;
    let mut row = first;
    for (group, keys) in KEYS {
        if row < last {
            painter.text(x, row, group, painter.theme.label());
        }
        row += 1;
        for (key, action) in keys {
            if row < last {
                painter.text(x + 2, row, key, painter.theme.bold());
                painter.text(x + 16, row, action, Style::new());
            }
            row += 1;
        }
    }
}

//! Colors and characters that the terminal supports.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

/// Percentage from which a value is drawn as a warning.
const WARNING_PERCENT: f64 = 75.0;
/// Percentage from which a value is drawn as critical.
const CRITICAL_PERCENT: f64 = 90.0;

/// Capabilities of the terminal that the drawing uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Colors; without them, bold, dim and reversed text only.
    pub has_color: bool,
    /// Unicode characters; without them, ASCII only.
    pub has_unicode: bool,
}

impl Theme {
    /// Theme from the environment: `NO_COLOR` (no-color.org) if it is not empty, and the encoding of `LC_ALL`,
    /// `LC_CTYPE` or `LANG` (locale(7)).
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Self {
        let non_empty = |name: &&str| get(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(non_empty).unwrap_or_default();
        let encoding = locale.to_ascii_lowercase().replace('-', "");
        Self { has_color: non_empty(&"NO_COLOR").is_none(), has_unicode: encoding.contains("utf8") }
    }

    /// Style with a color, or the default style without colors.
    fn color(self, color: Color) -> Style {
        if self.has_color { Style::new().fg(color) } else { Style::new() }
    }

    /// Style of a percentage: default until a value needs attention.
    pub(crate) fn level(self, percent: f64) -> Style {
        match percent {
            value if value >= CRITICAL_PERCENT => self.critical(),
            value if value >= WARNING_PERCENT => self.warning(),
            _ => Style::new(),
        }
    }

    pub(crate) fn critical(self) -> Style {
        self.color(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(crate) fn warning(self) -> Style {
        self.color(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// Style of the live state.
    pub(crate) fn live(self) -> Style {
        self.color(Color::Green).add_modifier(Modifier::BOLD)
    }

    /// Style of a recorded time.
    pub(crate) fn past(self) -> Style {
        self.color(Color::Cyan).add_modifier(Modifier::BOLD | Modifier::REVERSED)
    }

    /// Style of labels and headings.
    pub(crate) fn label(self) -> Style {
        self.color(Color::Cyan)
    }

    pub(crate) fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(crate) fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(crate) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Replaces the characters of a drawn screen that the terminal does not support.
    pub(crate) fn reduce_characters(self, buffer: &mut Buffer) {
        if self.has_unicode {
            return;
        }
        for cell in &mut buffer.content {
            if !cell.symbol().is_ascii() {
                let reduced = to_ascii(cell.symbol());
                cell.set_char(reduced);
            }
        }
    }

    /// Replaces the characters of a text that the terminal does not support.
    pub(crate) fn reduce_text(self, text: &str) -> String {
        if self.has_unicode {
            return text.to_owned();
        }
        text.chars().map(|c| if c.is_ascii() { c } else { to_ascii(c.encode_utf8(&mut [0; 4])) }).collect()
    }
}

/// ASCII character that resembles a symbol.
fn to_ascii(symbol: &str) -> char {
    match symbol {
        "▁" | "▂" => '.',
        "▃" | "▄" => ':',
        "▅" | "▆" => '+',
        "▇" => '*',
        "█" | "▉" | "▊" | "▋" => '#',
        "▌" | "▍" | "▎" | "▏" => '|',
        "–" => '-',
        "·" => '|',
        "…" => '~',
        "▲" => '^',
        "▼" | "↓" => 'v',
        "↑" => '^',
        "←" => '<',
        "→" => '>',
        "×" => 'x',
        "°" => ' ',
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn theme_follows_the_environment() {
        for (variables, has_color, has_unicode) in [
            (&[][..], true, false),
            (&[("LANG", "de_DE.UTF-8")], true, true),
            (&[("LANG", "C.utf8"), ("NO_COLOR", "1")], false, true),
            (&[("LANG", "C.UTF-8"), ("LC_ALL", "C")], true, false),
            (&[("LANG", "C"), ("LC_CTYPE", "C.UTF-8"), ("LC_ALL", "")], true, true),
            (&[("NO_COLOR", "")], true, false),
        ] {
            let get = |name: &str| {
                let value = variables.iter().find(|(key, _)| *key == name);
                value.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(Theme::from_environment(get), Theme { has_color, has_unicode }, "{variables:?}");
        }
    }

    #[test]
    fn levels_without_color_differ_by_weight() {
        let theme = Theme { has_color: false, has_unicode: true };
        assert_eq!(theme.level(74.9), Style::new());
        assert_eq!(theme.level(95.0), Style::new().add_modifier(Modifier::BOLD));
        assert_eq!(Theme { has_color: true, ..theme }.level(95.0).fg, Some(Color::Red));
    }

    #[test]
    fn text_without_unicode_is_ascii() {
        let theme = Theme { has_color: false, has_unicode: false };
        assert_eq!(theme.reduce_text("– 3 · ä 漢 …"), "- 3 | ? ? ~");
    }
}

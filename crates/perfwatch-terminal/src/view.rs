//! State of the view. Pure: keys, snapshots and time change the state and produce effects for the shell.

use crate::frame::{HostFrame, Ribbon};
use crate::process_table::{ProcessOrder, select_rows};
use crate::source::{SeekTarget, SourceRequest, SourceUpdate};
use crate::time_input;
use jiff::tz::TimeZone;
use perfwatch_model::HostFacts;
use std::sync::Arc;

/// Ranges of the ribbon in milliseconds, for the keys `+` and `-`.
pub(crate) const RIBBON_RANGES_MS: [i64; 6] =
    [300_000, 900_000, 3_600_000, 6 * 3_600_000, 24 * 3_600_000, 7 * 24 * 3_600_000];
/// Part of the ribbon's range that PgUp and PgDn move.
const JUMP_PERCENT: i64 = 10;
/// Part of the ribbon's range after which a live ribbon is read again.
const REFRESH_PERCENT: i64 = 1;
/// Maximum length of the text of a prompt.
const MAX_PROMPT_CHARS: usize = 100;

/// Key of the keyboard, as far as the view uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Left,
    Right,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    /// Ctrl-U: clears the text of a prompt.
    Clear,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-Z.
    Suspend,
    /// Ctrl-L.
    Repaint,
}

/// Input of the view.
#[derive(Clone, Debug)]
pub(crate) enum ViewEvent {
    /// Key press.
    Key(Key),
    /// Current time, milliseconds since 1970.
    Time(i64),
    /// Result of the source.
    Source(SourceUpdate),
}

/// Output of the view, executed by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ViewEffect {
    /// Send a request to the source.
    Request(SourceRequest),
    /// End the program.
    Quit,
    /// Stop the process until SIGCONT.
    Suspend,
    /// Draw the whole screen again.
    Repaint,
}

/// Time that the view displays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ViewMode {
    /// Newest snapshot.
    Live,
    /// Snapshot that was the newest when the user paused.
    Paused,
    /// Earlier snapshot.
    Past,
}

/// Purpose of the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PromptKind {
    Filter,
    Time,
}

/// Line of input at the bottom of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) kind: PromptKind,
    pub(crate) text: String,
}

/// State of the view.
#[derive(Debug)]
pub struct View {
    pub(crate) host: String,
    pub(crate) facts: Option<Arc<HostFacts>>,
    pub(crate) zone: TimeZone,
    pub(crate) now_ms: i64,
    pub(crate) mode: ViewMode,
    /// Displayed snapshot.
    pub(crate) frame: Option<HostFrame>,
    /// Newest live snapshot.
    pub(crate) newest: Option<HostFrame>,
    /// Error of the last poll; `None` after a successful poll.
    pub(crate) failure: Option<String>,
    pub(crate) ribbon: Ribbon,
    ribbon_range: usize,
    is_ribbon_requested: bool,
    seek: PendingSeek,
    pub(crate) order: ProcessOrder,
    pub(crate) is_reversed: bool,
    pub(crate) filter: String,
    /// Index of the first displayed row of the process table.
    pub(crate) scroll: usize,
    pub(crate) prompt: Option<Prompt>,
    pub(crate) is_help_open: bool,
    /// Message of the last action, until the next key.
    pub(crate) notice: Option<String>,
}

/// Seek that follows the seek in progress. Keys that repeat are combined.
#[derive(Debug, Default)]
struct PendingSeek {
    is_in_progress: bool,
    /// Time of the seek in progress, if it has one.
    current_ms: Option<i64>,
    target_ms: Option<i64>,
    steps: i32,
}

impl View {
    /// Live view of a host at a time in milliseconds since 1970.
    pub fn new(host: &str, now_ms: i64, zone: TimeZone) -> Self {
        Self {
            host: host.to_owned(),
            facts: None,
            zone,
            now_ms,
            mode: ViewMode::Live,
            frame: None,
            newest: None,
            failure: None,
            ribbon: Ribbon::default(),
            ribbon_range: 1,
            is_ribbon_requested: false,
            seek: PendingSeek::default(),
            order: ProcessOrder::default(),
            is_reversed: false,
            filter: String::new(),
            scroll: 0,
            prompt: None,
            is_help_open: false,
            notice: None,
        }
    }

    /// Sets order and filter of the process table.
    #[must_use]
    pub fn with_processes(mut self, order: ProcessOrder, filter: &str) -> Self {
        self.order = order;
        filter.clone_into(&mut self.filter);
        self
    }

    /// Range of the ribbon in milliseconds.
    pub(crate) fn ribbon_range_ms(&self) -> i64 {
        RIBBON_RANGES_MS[self.ribbon_range]
    }

    /// Rows of the displayed process table.
    pub(crate) fn rows(&self) -> Vec<&perfwatch_model::ProcessRow> {
        let rows = self.frame.as_ref().map_or(&[][..], |frame| &frame.snapshot.processes);
        select_rows(rows, self.order, self.is_reversed, &self.filter)
    }

    /// Age of the displayed snapshot in milliseconds, at least zero.
    pub(crate) fn age_ms(&self) -> i64 {
        self.frame.as_ref().map_or(0, |frame| self.now_ms.saturating_sub(frame.at_ms()).max(0))
    }

    /// Returns whether the live snapshot is older than three intervals.
    pub(crate) fn is_stale(&self) -> bool {
        let limit_ms = self.frame.as_ref().map_or(0, |frame| 3 * frame.resolution_ms).max(10_000);
        self.mode == ViewMode::Live && self.age_ms() > limit_ms
    }

    /// Changes the state by an event.
    pub(crate) fn reduce(&mut self, event: ViewEvent) -> Vec<ViewEffect> {
        match event {
            ViewEvent::Time(now_ms) => {
                self.now_ms = now_ms;
                Vec::new()
            }
            ViewEvent::Key(key) => self.press(key),
            ViewEvent::Source(SourceUpdate::Live(frame)) => self.receive_live(frame),
            ViewEvent::Source(SourceUpdate::Failed(message)) => {
                self.failure = Some(message);
                Vec::new()
            }
            ViewEvent::Source(SourceUpdate::Seek(target, result)) => self.receive_seek(target, result),
            ViewEvent::Source(SourceUpdate::Ribbon(result)) => {
                self.is_ribbon_requested = false;
                match result {
                    Ok(ribbon) => self.ribbon = ribbon,
                    Err(message) => self.notice = Some(message),
                }
                // The range may have changed since the request.
                if self.ribbon.to_ms - self.ribbon.from_ms == self.ribbon_range_ms() {
                    Vec::new()
                } else {
                    self.load_ribbon()
                }
            }
        }
    }

    /// Displays the newest snapshot at or before a time.
    pub(crate) fn go_to(&mut self, at_ms: i64) -> Vec<ViewEffect> {
        if at_ms >= self.now_ms {
            return self.go_live();
        }
        self.mode = ViewMode::Past;
        self.seek.target_ms = Some(at_ms);
        self.seek.steps = 0;
        self.send_seek()
    }

    fn receive_live(&mut self, frame: HostFrame) -> Vec<ViewEffect> {
        self.failure = None;
        if let Some(facts) = &frame.snapshot.facts {
            self.facts = Some(facts.clone());
        }
        self.now_ms = self.now_ms.max(frame.at_ms());
        self.newest = Some(frame.clone());
        if self.mode != ViewMode::Live {
            return Vec::new();
        }
        self.frame = Some(frame);
        let is_due = self.now_ms - self.ribbon.to_ms >= self.ribbon_range_ms() * REFRESH_PERCENT / 100;
        if is_due { self.load_ribbon() } else { Vec::new() }
    }

    fn receive_seek(
        &mut self,
        target: SeekTarget,
        result: Result<Option<HostFrame>, String>,
    ) -> Vec<ViewEffect> {
        self.seek.is_in_progress = false;
        self.seek.current_ms = None;
        if self.mode == ViewMode::Live {
            return Vec::new();
        }
        match (result, target) {
            (Ok(Some(frame)), _) => self.frame = Some(frame),
            // No later snapshot.
            (Ok(None), SeekTarget::Step { count, .. }) if count > 0 => return self.go_live(),
            (Ok(None), SeekTarget::Step { .. }) => self.notice = Some("no earlier snapshot".to_owned()),
            (Ok(None), SeekTarget::At(at_ms)) => {
                let time = time_input::format_time(at_ms, self.now_ms, &self.zone);
                self.notice = Some(format!("no data in the hour before {time}"));
            }
            (Err(message), _) => self.notice = Some(message),
        }
        let newest_ms = self.newest.as_ref().map(HostFrame::at_ms);
        if self.frame.is_none()
            || (self.notice.is_some() && self.frame.as_ref().map(HostFrame::at_ms) == newest_ms)
        {
            return self.go_live();
        }
        let mut effects = self.send_seek();
        let at_ms = self.frame.as_ref().map_or(0, HostFrame::at_ms);
        if !self.ribbon.covers(at_ms) {
            effects.extend(self.load_ribbon());
        }
        effects
    }

    fn send_seek(&mut self) -> Vec<ViewEffect> {
        if self.seek.is_in_progress {
            return Vec::new();
        }
        let steps = std::mem::take(&mut self.seek.steps);
        self.seek.current_ms = self.seek.target_ms;
        let target = match (self.seek.target_ms.take(), &self.frame) {
            (Some(at_ms), _) => SeekTarget::At(at_ms),
            (None, Some(frame)) if steps != 0 => SeekTarget::Step { from_ms: frame.at_ms(), count: steps },
            _ => return Vec::new(),
        };
        self.seek.is_in_progress = true;
        vec![ViewEffect::Request(SourceRequest::Seek(target))]
    }

    /// Requests the ribbon around the displayed snapshot; its end is at most the current time.
    fn load_ribbon(&mut self) -> Vec<ViewEffect> {
        if self.is_ribbon_requested {
            return Vec::new();
        }
        let range_ms = self.ribbon_range_ms();
        let to_ms = match (&self.frame, self.mode) {
            (Some(frame), ViewMode::Past) => (frame.at_ms() + range_ms / 2).min(self.now_ms),
            _ => self.now_ms,
        };
        self.is_ribbon_requested = true;
        vec![ViewEffect::Request(SourceRequest::Ribbon { from_ms: to_ms - range_ms, to_ms })]
    }

    fn go_live(&mut self) -> Vec<ViewEffect> {
        self.mode = ViewMode::Live;
        self.seek.target_ms = None;
        self.seek.steps = 0;
        self.frame = self.newest.clone();
        self.load_ribbon()
    }

    /// Moves by a number of snapshots.
    fn step(&mut self, count: i32) -> Vec<ViewEffect> {
        if self.frame.is_none() || (self.mode == ViewMode::Live && count > 0) {
            return Vec::new();
        }
        self.mode = ViewMode::Past;
        self.seek.steps = self.seek.steps.saturating_add(count);
        self.send_seek()
    }

    /// Moves by a part of the ribbon's range.
    fn jump(&mut self, direction: i64) -> Vec<ViewEffect> {
        let Some(frame) = &self.frame else { return Vec::new() };
        if self.mode == ViewMode::Live && direction > 0 {
            return Vec::new();
        }
        let start_ms = self.seek.target_ms.or(self.seek.current_ms).unwrap_or(frame.at_ms());
        let at_ms = start_ms + direction * self.ribbon_range_ms() * JUMP_PERCENT / 100;
        let newest_ms = self.newest.as_ref().map_or(self.now_ms, HostFrame::at_ms);
        if at_ms >= newest_ms { self.go_live() } else { self.go_to(at_ms) }
    }

    fn zoom(&mut self, delta: isize) -> Vec<ViewEffect> {
        let range = self.ribbon_range.saturating_add_signed(delta).min(RIBBON_RANGES_MS.len() - 1);
        if range == self.ribbon_range {
            return Vec::new();
        }
        self.ribbon_range = range;
        self.load_ribbon()
    }

    fn press(&mut self, key: Key) -> Vec<ViewEffect> {
        match key {
            Key::Interrupt => return vec![ViewEffect::Quit],
            Key::Suspend => return vec![ViewEffect::Suspend],
            Key::Repaint => return vec![ViewEffect::Repaint],
            _ => {}
        }
        self.notice = None;
        if self.prompt.is_some() {
            return self.press_in_prompt(key);
        }
        if self.is_help_open {
            self.is_help_open = false;
            return if key == Key::Char('q') { vec![ViewEffect::Quit] } else { Vec::new() };
        }
        match key {
            Key::Char('q') => vec![ViewEffect::Quit],
            Key::Char('?' | 'h') => {
                self.is_help_open = true;
                Vec::new()
            }
            Key::Left => self.step(-1),
            Key::Right => self.step(1),
            Key::PageUp => self.jump(-1),
            Key::PageDown => self.jump(1),
            Key::Char('+' | '=') => self.zoom(-1),
            Key::Char('-') => self.zoom(1),
            Key::Char('l') => self.go_live(),
            Key::Char(' ') => self.pause(),
            Key::Char('g') => self.open_prompt(PromptKind::Time),
            Key::Char('/') => self.open_prompt(PromptKind::Filter),
            _ => {
                self.press_for_table(key);
                Vec::new()
            }
        }
    }

    fn pause(&mut self) -> Vec<ViewEffect> {
        match (self.mode, &self.frame) {
            (ViewMode::Live, Some(_)) => {
                self.mode = ViewMode::Paused;
                Vec::new()
            }
            (ViewMode::Live, None) => Vec::new(),
            _ => self.go_live(),
        }
    }

    fn press_for_table(&mut self, key: Key) {
        let last = self.rows().len().saturating_sub(1);
        match key {
            Key::Up | Key::Char('k') => self.scroll = self.scroll.min(last).saturating_sub(1),
            Key::Down | Key::Char('j') => self.scroll = (self.scroll + 1).min(last),
            Key::Home => self.scroll = 0,
            Key::End => self.scroll = last,
            Key::Char('s') => self.sort_by(self.order.next()),
            Key::Char('c') => self.sort_by(ProcessOrder::Cpu),
            Key::Char('m') => self.sort_by(ProcessOrder::Memory),
            Key::Char('i') => self.sort_by(ProcessOrder::Io),
            Key::Char('n') => self.sort_by(ProcessOrder::Name),
            Key::Char('p') => self.sort_by(ProcessOrder::Pid),
            Key::Char('r') => self.is_reversed = !self.is_reversed,
            Key::Escape => self.filter.clear(),
            _ => {}
        }
    }

    fn sort_by(&mut self, order: ProcessOrder) {
        (self.order, self.is_reversed, self.scroll) = (order, false, 0);
    }

    fn open_prompt(&mut self, kind: PromptKind) -> Vec<ViewEffect> {
        let text = if kind == PromptKind::Filter { self.filter.clone() } else { String::new() };
        self.prompt = Some(Prompt { kind, text });
        Vec::new()
    }

    fn press_in_prompt(&mut self, key: Key) -> Vec<ViewEffect> {
        let Some(prompt) = &mut self.prompt else { return Vec::new() };
        let kind = prompt.kind;
        match key {
            Key::Char(c) if prompt.text.chars().count() < MAX_PROMPT_CHARS => prompt.text.push(c),
            Key::Backspace if prompt.text.is_empty() => self.prompt = None,
            Key::Backspace => {
                prompt.text.pop();
            }
            Key::Clear => prompt.text.clear(),
            Key::Escape => {
                self.prompt = None;
                if kind == PromptKind::Filter {
                    self.filter.clear();
                }
                return Vec::new();
            }
            Key::Enter => {
                let text = prompt.text.trim().to_owned();
                if kind == PromptKind::Time && !text.is_empty() {
                    return self.submit_time(&text);
                }
                self.prompt = None;
                return Vec::new();
            }
            _ => {}
        }
        // The filter applies while it is typed.
        if let Some(Prompt { kind: PromptKind::Filter, text }) = &self.prompt {
            self.filter.clone_from(text);
            self.scroll = 0;
        }
        Vec::new()
    }

    fn submit_time(&mut self, text: &str) -> Vec<ViewEffect> {
        match time_input::parse(text, self.now_ms, &self.zone) {
            Some(at_ms) => {
                self.prompt = None;
                self.go_to(at_ms)
            }
            // The prompt stays open for a correction.
            None => {
                self.notice = Some(format!("invalid time {text:?}; expected {}", time_input::EXPECTED));
                Vec::new()
            }
        }
    }
}

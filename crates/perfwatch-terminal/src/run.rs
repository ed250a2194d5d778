//! Front ends of the view: screen, plain lines, and a single report.

use crate::draw::{MIN_SIZE, draw};
use crate::plain::{COMMANDS, parse_command, report};
use crate::screen::{Screen, to_key};
use crate::session::{Message, Session};
use crate::source::{HostSource, SeekTarget, SourceUpdate};
use crate::theme::Theme;
use crate::view::{Key, View, ViewEffect, ViewEvent};
use perfwatch_model::Clock;
use ratatui::buffer::Buffer;
use ratatui::crossterm::{event, terminal};
use ratatui::layout::Rect;
use std::io::{self, BufRead as _, Read as _, Write};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Time after which the screen is drawn without an event: ages of values advance.
const REDRAW_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum length of a typed line in plain mode.
const MAX_LINE_BYTES: u64 = 1_000;
/// Maximum number of attempts to receive a snapshot for a single report, and the pause between two.
const MAX_ATTEMPTS: u32 = 40;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(250);

/// Options of all front ends.
pub struct Options {
    /// Initial state.
    pub view: View,
    /// Time between two live snapshots.
    pub interval: Duration,
    /// Capabilities of the terminal.
    pub theme: Theme,
    /// Time to display first, milliseconds since 1970; `None` for live.
    pub start_ms: Option<i64>,
}

fn source_ended() -> io::Error {
    io::Error::other("the data source stopped unexpectedly")
}

/// Draws the view on the terminal until the user quits.
///
/// # Errors
/// Fails if the terminal cannot be used, or if the source panics.
pub fn run_screen(source: Box<dyn HostSource>, options: Options, clock: Arc<dyn Clock>) -> io::Result<()> {
    let Options { view, interval, theme, start_ms } = options;
    let mut session = Session::start(source, view, interval, clock)?;
    let mut screen = Screen::enter()?;
    session.spawn("input", |sender| read_keys(&sender))?;
    start_at(&mut session, start_ms);
    loop {
        screen.draw(|buffer| draw(&session.view, theme, buffer))?;
        let messages = session.wait(REDRAW_INTERVAL);
        if messages.is_empty() {
            session.apply(ViewEvent::Time(session.clock.wall_ms()));
        }
        for message in messages {
            let effects = match message {
                Message::Source(update) => session.apply(ViewEvent::Source(update)),
                Message::Key(key) => session.apply(ViewEvent::Key(key)),
                Message::Redraw | Message::Line(_) => Vec::new(),
                Message::Stop => return Ok(()),
                Message::SourceEnded => return Err(source_ended()),
            };
            for effect in effects {
                match effect {
                    ViewEffect::Quit => return Ok(()),
                    ViewEffect::Suspend => screen.suspend()?,
                    ViewEffect::Repaint => screen.clear()?,
                    ViewEffect::Request(_) => {}
                }
            }
        }
    }
}

fn start_at(session: &mut Session, start_ms: Option<i64>) {
    if let Some(start_ms) = start_ms {
        let effects = session.view.go_to(start_ms);
        session.execute(effects);
    }
}

/// Reads keys until the terminal ends.
fn read_keys(sender: &Sender<Message>) {
    loop {
        let message = match event::read() {
            Ok(event) => to_key(&event).map_or(Message::Redraw, Message::Key),
            Err(_) => Message::Stop,
        };
        let is_end = matches!(message, Message::Stop);
        if sender.send(message).is_err() || is_end {
            return;
        }
    }
}

/// Reads typed lines until the standard input ends.
fn read_lines(sender: &Sender<Message>) {
    let mut input = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        match input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if sender.send(Message::Line(String::from_utf8_lossy(&line).into_owned())).is_err() {
            return;
        }
    }
}

/// Writes lines of text for each displayed snapshot until the user quits. Typed lines are commands.
///
/// # Errors
/// Fails if the output cannot be written, or if the source panics. A closed pipe is not an error.
pub fn run_plain(
    source: Box<dyn HostSource>,
    options: Options,
    clock: Arc<dyn Clock>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Options { view, interval, theme, start_ms } = options;
    let mut session = Session::start(source, view, interval, clock)?;
    session.spawn("input", |sender| read_lines(&sender))?;
    start_at(&mut session, start_ms);
    let result = write_reports(&mut session, theme, out);
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn write_reports(session: &mut Session, theme: Theme, out: &mut dyn Write) -> io::Result<()> {
    let mut last_ms = None;
    let mut last_failure = None;
    let mut write = |lines: &[String]| {
        for line in lines {
            writeln!(out, "{}", theme.reduce_text(line))?;
        }
        writeln!(out)?;
        out.flush()
    };
    loop {
        for message in session.wait(REDRAW_INTERVAL) {
            let keys = match message {
                Message::Source(update) => {
                    session.apply(ViewEvent::Source(update));
                    Vec::new()
                }
                Message::Line(line) => match parse_command(&line, &session.view) {
                    Some(keys) => keys,
                    None => {
                        write(&[format!("Unknown command {:?}.", line.trim()), COMMANDS.to_owned()])?;
                        Vec::new()
                    }
                },
                Message::Key(_) | Message::Redraw => Vec::new(),
                Message::Stop => return Ok(()),
                Message::SourceEnded => return Err(source_ended()),
            };
            for key in keys {
                if key == Key::Char('?') {
                    write(&[COMMANDS.to_owned()])?;
                    continue;
                }
                last_ms = None;
                if session.apply(ViewEvent::Key(key)).contains(&ViewEffect::Quit) {
                    return Ok(());
                }
            }
            if let Some(notice) = session.view.notice.take() {
                write(&[notice])?;
            }
            if session.view.failure != last_failure {
                last_failure.clone_from(&session.view.failure);
                let text = last_failure
                    .as_ref()
                    .map_or("Connected again.".to_owned(), |failure| format!("Reconnecting: {failure}"));
                write(&[text])?;
            }
            let at_ms = session.view.frame.as_ref().map(crate::frame::HostFrame::at_ms);
            if at_ms.is_some() && at_ms != last_ms {
                last_ms = at_ms;
                write(&report(&session.view))?;
            }
        }
    }
}

/// Writes a single screen or report, without moving the cursor.
///
/// # Errors
/// Fails with a message if the source cannot be reached, has no snapshot, or if the output cannot be written.
pub fn print_once(
    mut source: Box<dyn HostSource>,
    options: Options,
    is_plain: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Options { mut view, theme, start_ms, .. } = options;
    std::thread::sleep(source.start_delay());
    receive_newest(&mut *source, &mut view)?;
    if let Some(at_ms) = start_ms {
        let target = SeekTarget::At(at_ms);
        view.go_to(at_ms);
        view.reduce(ViewEvent::Source(SourceUpdate::Seek(target, source.seek(target))));
        if let Some(notice) = view.notice {
            return Err(io::Error::other(notice));
        }
    }
    let at_ms = view.frame.as_ref().map_or(view.now_ms, crate::frame::HostFrame::at_ms);
    let ribbon = source.ribbon(at_ms - view.ribbon_range_ms(), at_ms);
    view.reduce(ViewEvent::Source(SourceUpdate::Ribbon(ribbon)));
    let lines = if is_plain { report(&view) } else { screen_lines(&view, theme) };
    let text: String = lines.iter().map(|line| theme.reduce_text(line) + "\n").collect();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn receive_newest(source: &mut dyn HostSource, view: &mut View) -> io::Result<()> {
    for _ in 0..MAX_ATTEMPTS {
        if let Some(frame) = source.poll().map_err(io::Error::other)? {
            view.reduce(ViewEvent::Source(SourceUpdate::Live(frame)));
            return Ok(());
        }
        std::thread::sleep(ATTEMPT_INTERVAL);
    }
    Err(io::Error::other("the host has no recent snapshot"))
}

/// Rows of a screen as text.
fn screen_lines(view: &View, theme: Theme) -> Vec<String> {
    let (width, height) = terminal::size().unwrap_or(MIN_SIZE);
    let mut buffer = Buffer::empty(Rect::new(0, 0, width.max(1), height.max(2)));
    draw(view, theme, &mut buffer);
    // The last row contains keys.
    let last = buffer.area.height - 1;
    (0..last).map(|row| row_text(&buffer, row)).collect()
}

/// Text of a row without spaces at its end.
pub(crate) fn row_text(buffer: &Buffer, row: u16) -> String {
    let mut text = String::new();
    let mut next = 0;
    for x in 0..buffer.area.width {
        let symbol = buffer[(x, row)].symbol();
        // The second column of a wide character is empty.
        if x >= next {
            text.push_str(symbol);
            next = x + u16::try_from(ratatui::text::Span::raw(symbol).width().max(1)).unwrap_or(1);
        }
    }
    text.trim_end().to_owned()
}

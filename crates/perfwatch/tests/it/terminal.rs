//! `perfwatch top` in a pseudo-terminal, as lines of text, and with a hub.

use crate::support::{ADMIN, BINARY, TestHub, eventually, now_ms};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// Sequence that leaves the alternate screen.
const LEAVE_SCREEN: &str = "\x1b[?1049l";

/// Program in a pseudo-terminal of 80 × 24 characters.
struct TerminalProcess {
    child: Child,
    keyboard: File,
    /// Terminal side, whose modes the program changes.
    terminal: File,
    output: Arc<Mutex<Vec<u8>>>,
}

impl TerminalProcess {
    fn start(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let terminal = File::from(rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).unwrap());
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let mut command = Command::new(BINARY);
        command
            .args(args)
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .envs(variables.iter().copied());
        for stream in [Command::stdin, Command::stdout, Command::stderr] {
            stream(&mut command, Stdio::from(terminal.try_clone().unwrap()));
        }
        let child = command.spawn().unwrap();
        let keyboard = File::from(master);
        let (mut screen, output) = (keyboard.try_clone().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let received = output.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                received.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { child, keyboard, terminal, output }
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits for the end of the program and checks that the terminal is restored.
    fn assert_ends_restored(&mut self) {
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{:?}", self.output());
        assert!(!self.is_raw());
        eventually("the alternate screen is left", || self.output().contains(LEAVE_SCREEN));
    }
}

impl Drop for TerminalProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).env_remove("PERFWATCH_API_TOKEN").stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn top_draws_a_screen_and_restores_the_terminal() {
    let mut top = TerminalProcess::start(&["top", "--interval", "250ms"], &[]);
    eventually("the screen has a process table", || top.output().contains("COMMAND"));
    assert!(top.is_raw() && top.output().contains("LIVE") && top.output().contains("Memory"));
    // Back by two snapshots, the help, and the end.
    top.press("\x1b[D\x1b[D");
    eventually("the screen is in the past", || top.output().contains("PAST"));
    top.press("?");
    eventually("the help is open", || top.output().contains("reverse"));
    top.press("q");
    top.assert_ends_restored();
}

#[test]
fn top_suspends_and_continues() {
    let mut top = TerminalProcess::start(&["top"], &[]);
    eventually("the screen has a process table", || top.output().contains("COMMAND"));
    // Ctrl-L, Ctrl-Z.
    top.press("\x0c");
    eventually("the screen is drawn again", || top.output().matches("COMMAND").count() == 2);
    top.press("\x1a");
    let status = format!("/proc/{}/status", top.child.id());
    let is_stopped = || std::fs::read_to_string(&status).unwrap().contains("State:\tT");
    eventually("the process is stopped", is_stopped);
    assert!(!top.is_raw());
    assert!(Command::new("kill").args(["-CONT", &top.child.id().to_string()]).status().unwrap().success());
    eventually("the screen is drawn again", || top.output().matches("COMMAND").count() == 3);
    assert!(top.is_raw());
    top.press("q");
    top.assert_ends_restored();
}

#[test]
fn top_restores_the_terminal_after_signals() {
    for signal in ["TERM", "HUP", "INT"] {
        let mut top = TerminalProcess::start(&["top"], &[]);
        eventually("the screen has a process table", || top.output().contains("COMMAND"));
        let pid = top.child.id().to_string();
        assert!(Command::new("kill").args([format!("-{signal}"), pid]).status().unwrap().success());
        top.assert_ends_restored();
    }
}

/// Returns whether an output selects a color of the text or of the background (SGR, ECMA-48 8.3.117).
fn has_color(output: &str) -> bool {
    let is_color = |number: &str| matches!(number.parse(), Ok(30..=38 | 40..=48 | 90..=107));
    output.split("\x1b[").skip(1).any(|sequence| {
        let end = sequence.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(0);
        sequence[end..].starts_with('m') && sequence[..end].split(';').any(is_color)
    })
}

#[test]
fn top_without_color_emits_no_colors() {
    let screen = |variables: &[(&str, &str)]| {
        let mut top = TerminalProcess::start(&["top"], variables);
        eventually("the screen has a process table", || top.output().contains("COMMAND"));
        top.press("q");
        top.assert_ends_restored();
        top.output()
    };
    assert!(has_color(&screen(&[])));
    let output = screen(&[("NO_COLOR", "1")]);
    assert!(!has_color(&output), "{output:?}");
}

#[test]
fn top_writes_text_without_a_terminal() {
    let screen = run(&["top", "--once", "--interval", "250ms"]);
    let lines = text(&screen.stdout);
    assert!(screen.status.success() && lines.contains("COMMAND") && !lines.contains('\x1b'), "{lines}");
    let report = text(&run(&["top", "--once", "--plain", "--interval", "250ms", "--sort", "pid"]).stdout);
    assert!(report.contains("\nCPU ") && report.contains("by pid:"), "{report}");
    // Typed commands, until the end.
    let mut plain = Command::new(BINARY)
        .args(["top", "--plain", "--interval", "250ms"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    plain.stdin.as_mut().unwrap().write_all(b"nonsense\n/no such process\nq\n").unwrap();
    let output = plain.wait_with_output().unwrap();
    let output_text = text(&output.stdout);
    assert!(output.status.success() && output_text.contains("Unknown command \"nonsense\""), "{output_text}");
}

#[test]
fn top_errors_name_the_problem() {
    let unreachable = "http://127.0.0.1:1";
    for (args, expected) in [
        (&["top"][..], "standard output is not a terminal; use --plain or --once"),
        (
            &["top", "--once", "--sort", "size"],
            "unknown column \"size\"; expected cpu, memory, io, name, pid",
        ),
        (&["top", "--once", "--interval", "1ms"], "invalid duration \"1ms\"; expected 250ms to 1h"),
        (&["top", "web-1"], "--hub"),
        (&["top", "--once", "--hub", unreachable], "--hub requires an API token"),
        (&["top", "--once", "--hub", "ftp://x", "--token", "t"], "invalid URL \"ftp://x\""),
        (&["top", "--once", "--hub", unreachable, "--token", "t"], "http://127.0.0.1:1: "),
        (
            &["top", "--once", "--hub", "https://x", "--token", "t", "--ca", "/nowhere"],
            "/nowhere: No such file",
        ),
    ] {
        let output = run(args);
        let error = text(&output.stderr);
        assert!(!output.status.success() && error.contains(expected), "{args:?}: {error}");
    }
}

#[test]
fn top_displays_hosts_of_a_hub_live_and_in_the_past() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let token = hub.create_token(ADMIN, "viewer");
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, format!("{token}\n")).unwrap();
    let now = now_ms();
    let post = |host: &str, at_ms: i64, command: &str| {
        let body = json!({
            "host": host, "timestamp": at_ms, "interval_ms": 2000, "cpu": { "usage": 12.5 },
            "processes": { "top": [{ "pid": 7, "name": "job", "command": command, "cpu_percent": 99.5 }] },
        });
        assert!(hub.post_json(&body).status < 300);
    };
    post("web-1", now - 600_000, "BATCH_OLD \u{1b}[2J");
    post("web-1", now, "serve-now");
    let url = hub.url("");
    let file = format!("file:{}", token_file.display());
    let once =
        |args: &[&str]| run(&[&["top", "--once", "--plain", "--hub", &url, "--token", &file], args].concat());
    // The only host needs no name.
    let live = text(&once(&[]).stdout);
    assert!(live.contains("CPU 12.5 %") && live.contains("serve-now"), "{live}");
    let past = text(&once(&["web-1", "--at", "-9m"]).stdout);
    assert!(past.contains("PAST") && past.contains("BATCH_OLD \\u{1b}[2J"), "{past}");
    post("web-2", now, "");
    for (args, expected) in [
        (&[][..], "the hub has 2 hosts; name one: web-1, web-2"),
        (&["web-3"], "host \"web-3\" not found"),
        (&["web-1", "--at", "-2d"], "no data in the hour before"),
        (&["web-1", "--at", "soon"], "--at: invalid time \"soon\""),
    ] {
        let output = once(args);
        assert!(
            !output.status.success() && text(&output.stderr).contains(expected),
            "{}",
            text(&output.stderr)
        );
    }
    let wrong = run(&["top", "--once", "--hub", &url, "--token", "pwt_wrong"]);
    assert!(text(&wrong.stderr).contains("authentication failed"), "{}", text(&wrong.stderr));
    // The screen writes changed characters only: the commands have no character in common at the same position.
    // Live in a terminal: a new snapshot arrives, the past is reached by a key, an outage is displayed.
    let args = ["top", "--hub", url.as_str(), "web-1"];
    let mut top = TerminalProcess::start(&args, &[("PERFWATCH_API_TOKEN", token.as_str())]);
    eventually("the live process is displayed", || top.output().contains("serve-now"));
    post("web-1", now_ms(), "DEPLOY_X");
    eventually("the next snapshot is displayed", || top.output().contains("DEPLOY_X"));
    top.press("\x1b[D\x1b[D");
    eventually("the past is displayed", || top.output().contains("BATCH_OLD"));
    assert!(!top.output().contains("\u{1b}[2J"), "the escape sequence of a process reached the terminal");
    top.press("l");
    drop(hub);
    eventually("the outage is displayed", || top.output().contains("RECONNECTING"));
    top.press("q");
    top.assert_ends_restored();
}

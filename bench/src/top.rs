//! CPU usage of `perfwatch top` in a pseudo-terminal: for this machine, and for a host of a hub whose agent sends every
//! second.

use crate::hub_process::{self, HubProcess};
use crate::process::{Running, spawn_sleepers};
use crate::store::Scratch;
use crate::tiny::shorten;
use anyhow::Context as _;
use perfwatch_model::{Clock, SystemClock};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const STARTUP_DELAY: Duration = Duration::from_secs(5);
/// Additional processes, as in the benchmark of the agent.
const PROCESS_COUNT: u64 = 300;
/// Columns and rows of the screens.
const SIZES: [(u16, u16); 2] = [(80, 24), (200, 60)];

/// Program in a pseudo-terminal, whose output is counted.
struct TerminalProcess {
    process: Running,
    written_bytes: Arc<AtomicU64>,
}

impl TerminalProcess {
    fn start(command: &mut Command, (columns, rows): (u16, u16)) -> anyhow::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = ptsname(&master, Vec::new())?;
        let terminal = File::from(rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?);
        tcsetwinsize(&terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
        for stream in [Command::stdin, Command::stdout, Command::stderr] {
            stream(command, Stdio::from(terminal.try_clone()?));
        }
        let child = command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").spawn()?;
        let (mut screen, written_bytes) = (File::from(master), Arc::new(AtomicU64::new(0)));
        let counter = written_bytes.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                counter.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
        Ok(Self { process: Running(child), written_bytes })
    }
}

/// Measures each screen for `seconds`.
pub(crate) fn run(seconds: u64) -> anyhow::Result<()> {
    let (clock, scratch) = (SystemClock::new(), Scratch::new("top")?);
    let hub = HubProcess::start(&scratch.0, &[])?;
    let admin = hub.create_user("root-admin", "admin")?;
    let token = hub.enrollment_token(&admin, 1)?;
    let program = hub_process::program()?;
    let agent = Running::start(
        Command::new(&program)
            .args(["agent", "--hub", &hub.url, "--interval", "1s", "--token", &token])
            .env("PERFWATCH_DATA", scratch.0.join("agent")),
    )?;
    let sleepers = spawn_sleepers(PROCESS_COUNT)?;
    wait_for_host(&hub, &admin)?;
    println!("{seconds} s each at 1 s, with {PROCESS_COUNT} additional processes; percent of one core");
    let secret = admin.trim_start_matches("Bearer ");
    for (name, arguments) in [("this machine", vec![]), ("host of a hub", vec!["--hub", hub.url.as_str()])] {
        for size in SIZES {
            let mut command = Command::new(&program);
            command.arg("top").args(&arguments).args(["--interval", "1s"]).env("PERFWATCH_API_TOKEN", secret);
            measure(name, &mut command, size, seconds, &clock)?;
        }
    }
    drop((agent, sleepers));
    Ok(())
}

/// Waits until the agent has sent.
fn wait_for_host(hub: &HubProcess, admin: &str) -> anyhow::Result<()> {
    for _ in 0..300 {
        let hosts = hub.request("/api/v1/hosts", admin, None)?;
        if hosts["hosts"].as_array().is_some_and(|hosts| !hosts.is_empty()) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("the agent did not send")
}

fn measure(
    name: &str,
    command: &mut Command,
    (columns, rows): (u16, u16),
    seconds: u64,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let top = TerminalProcess::start(command, (columns, rows)).context("perfwatch top")?;
    // Excludes the startup and the first full screen from the measurement.
    std::thread::sleep(shorten(STARTUP_DELAY));
    let (started, cpu) = (clock.monotonic(), top.process.cpu_seconds()?);
    let bytes = top.written_bytes.load(Ordering::Relaxed);
    anyhow::ensure!(bytes > 0, "perfwatch top drew no screen");
    std::thread::sleep(Duration::from_secs(seconds));
    let elapsed = clock.monotonic().saturating_sub(started).as_secs_f64();
    println!(
        "  {name}, {columns} × {rows}: {:.2} % of a core, {:.1} MB resident, {:.0} bytes/s written",
        (top.process.cpu_seconds()? - cpu) / elapsed * 100.0,
        top.process.resident_mb()?,
        (top.written_bytes.load(Ordering::Relaxed) - bytes) as f64 / elapsed
    );
    Ok(())
}

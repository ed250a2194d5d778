//! Processes from `/proc/PID` (proc_pid_stat(5), proc_pid_io(5)): numbers by state, and the raw
//! counters from which `derive` selects the top processes.
//!
//! Every process costs a small file per tick. Owner, command line, I/O and open files are read only
//! for candidates of the top processes: those that recently used CPU, and the largest in memory.

use crate::cache::{CachedProcess, MAX_CACHED_RUNS, ProcessCache, UserNames};
use crate::collector::to_f64;
use crate::parse::parse_error;
use crate::reading::{ProcessDetail, RawProcess};
use crate::{Cadence, CollectContext, CollectError, Collector, CommandLine, Source};
use perfwatch_model::{MetricDef, Unit::*};
use std::collections::HashMap;
use std::sync::Arc;

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("processes.total", Count, 0, "Processes, kernel threads included."),
    MetricDef::gauge("processes.threads", Count, 0, "Threads of all processes."),
    MetricDef::gauge("processes.running", Count, 0, "Runnable processes."),
    MetricDef::gauge("processes.sleeping", Count, 0, "Processes in interruptible sleep."),
    MetricDef::gauge("processes.blocked", Count, 0, "Processes in uninterruptible sleep."),
    MetricDef::gauge("processes.stopped", Count, 0, "Stopped or traced processes."),
    MetricDef::gauge("processes.zombie", Count, 0, "Zombie processes."),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "processes", metrics: METRICS, cadence: Cadence::EveryTick, read };

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    const FOLDER: &str = "/proc";
    let names = cx.source.list(FOLDER).map_err(|error| CollectError::from_io(FOLDER, &error))?;
    let mut pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    let (page_size, mut buffer, mut path) = (cx.source.page_size(), Vec::with_capacity(1024), String::new());
    let boot_ms = cx.cache.processes.boot_ms(cx.source);
    let mut processes = Vec::with_capacity(pids.len());
    for pid in pids {
        use std::fmt::Write as _;
        path.clear();
        let _ = write!(path, "/proc/{pid}/stat");
        // The process may have ended after the listing.
        if cx.source.read(&path, &mut buffer).is_err() {
            continue;
        }
        match parse_stat(&buffer, page_size) {
            Some(mut process) => {
                // Clock ticks are 1/100 s for programs on every architecture (USER_HZ).
                process.started_ms = boot_ms
                    .saturating_add(i64::try_from(process.start_ticks).unwrap_or(0).saturating_mul(10));
                processes.push(process);
            }
            None => cx.out.record_error(parse_error(&path, &String::from_utf8_lossy(&buffer)).to_string()),
        }
    }
    if processes.is_empty() {
        let first_error = cx.out.part.errors.first().cloned();
        return Err(first_error.map_or(CollectError::NotAvailable, CollectError::Failed));
    }
    if hides_processes(cx.source, &processes) {
        cx.out.record_error(
            "/proc is mounted with hidepid: only own processes are visible, so the totals are absent",
        );
    } else {
        push_state_counts(cx, &processes);
    }
    read_details(cx, &mut processes);
    cx.out.part.processes = processes;
    Ok(())
}

fn push_state_counts(cx: &mut CollectContext<'_>, processes: &[RawProcess]) {
    let count_in =
        |states: &str| to_f64(processes.iter().filter(|p| states.contains(p.state)).count() as u64);
    cx.out.gauge("processes.total", to_f64(processes.len() as u64));
    cx.out.gauge("processes.threads", to_f64(processes.iter().map(|p| u64::from(p.threads)).sum()));
    for (metric, states) in [
        ("processes.running", "R"),
        ("processes.sleeping", "SI"),
        ("processes.blocked", "D"),
        ("processes.stopped", "Tt"),
        ("processes.zombie", "Z"),
    ] {
        cx.out.gauge(metric, count_in(states));
    }
}

/// Returns whether the kernel hides processes of other users (mount option `hidepid` of proc(5)). Process 1
/// belongs to root; where it is visible, all are.
fn hides_processes(source: &dyn Source, processes: &[RawProcess]) -> bool {
    if processes.first().is_some_and(|process| process.pid == 1) {
        return false;
    }
    let mounts = crate::parse::text(source, "/proc/self/mountinfo").unwrap_or_default();
    let is_hidden = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let is_proc = mount.split(' ').nth(4)? == "/proc" && filesystem.starts_with("proc ");
        let mut options = filesystem.split([' ', ',']).filter_map(|option| option.strip_prefix("hidepid="));
        Some(is_proc && options.any(|mode| !matches!(mode, "0" | "off")))
    };
    mounts.lines().any(|line| is_hidden(line) == Some(true))
}

/// Change of the boot time that is a step of the clock, milliseconds. The kernel computes the boot time
/// from the wall clock, so it moves slightly while the clock is disciplined, and must not: the start time
/// identifies a process.
const MIN_CLOCK_STEP_MS: u64 = 2_000;

impl ProcessCache {
    /// Boot time from `/proc/stat`, milliseconds since 1970; 0 if unknown. A machine without a battery sets
    /// its clock soon after the boot, so the time is read again often in the first minute, then rarely: the
    /// kernel sums all interrupts for this file.
    fn boot_ms(&mut self, source: &dyn Source) -> i64 {
        let is_due = self.runs < MAX_CACHED_RUNS || self.runs.is_multiple_of(MAX_CACHED_RUNS);
        self.runs = self.runs.wrapping_add(1);
        if is_due {
            let stat = crate::parse::text(source, "/proc/stat").unwrap_or_default();
            let seconds =
                stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
            let current = seconds.unwrap_or_default().saturating_mul(1000);
            if self.boot_ms.is_none_or(|previous| previous.abs_diff(current) > MIN_CLOCK_STEP_MS) {
                self.boot_ms = Some(current);
            }
        }
        self.boot_ms.unwrap_or_default()
    }
}

/// Parses `pid (comm) S ppid …`. The name may contain spaces and parentheses; the last closing
/// parenthesis ends it.
fn parse_stat(bytes: &[u8], page_size: u64) -> Option<RawProcess> {
    let open = bytes.iter().position(|&b| b == b'(')?;
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let name = bytes.get(open + 1..close)?;
    let remaining = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    let mut words = remaining.split_ascii_whitespace();
    let state = words.next()?.chars().next()?;
    // Fields in ascending order, where ppid has index 0; skipped fields may be negative.
    let mut position = 0;
    let mut number = |index: usize| {
        let word = words.nth(index - position)?;
        position = index + 1;
        word.parse::<u64>().ok()
    };
    let parent = number(0)?;
    let (user, system, threads, start_ticks, pages) =
        (number(10)?, number(11)?, number(16)?, number(18)?, number(20)?);
    Some(RawProcess {
        pid: std::str::from_utf8(&bytes[..open]).ok()?.trim().parse().ok()?,
        parent_pid: u32::try_from(parent).ok().filter(|&parent| parent != 0),
        name: String::from_utf8_lossy(name).into(),
        state,
        cpu_ticks: user.checked_add(system)?,
        threads: u32::try_from(threads).ok()?,
        start_ticks,
        memory_bytes: pages.saturating_mul(page_size),
        ..RawProcess::default()
    })
}

/// Reads I/O, owner, command line and open files of candidates of the top processes, and caches
/// them for the next run.
fn read_details(cx: &mut CollectContext<'_>, processes: &mut [RawProcess]) {
    let cache = &mut cx.cache.processes;
    let is_first_run = cache.processes.is_empty();
    // A process that used no CPU since the last run did no storage I/O worth a read.
    let active: Vec<bool> =
        processes.iter().map(|p| is_first_run || p.state == 'D' || used_ticks(cache, p) > 0).collect();
    let candidates = top_candidates(cache, processes, cx.options.top_processes);
    let mut cached = HashMap::with_capacity(processes.len());
    cache.users.start_run();
    for (index, process) in processes.iter_mut().enumerate() {
        let previous = cache.processes.remove(&process.pid).filter(|p| p.start_ticks == process.start_ticks);
        process.io = match &previous {
            Some(previous) if !active[index] => previous.io,
            _ => read_io(cx.source, process.pid),
        };
        let has_new_io = previous.as_ref().is_none_or(|previous| previous.io != process.io);
        // After exec, a process has another name and another command line.
        process.detail =
            previous.and_then(|previous| (previous.name == process.name).then_some(previous.detail)?);
        if candidates[index] || (active[index] && has_new_io && process.io.is_some()) {
            if process.detail.is_none() {
                let detail = read_detail(cx.source, cx.options.command_line, process.pid, &mut cache.users);
                process.detail = Some(Arc::new(detail));
            }
            let count = cx.source.count(&format!("/proc/{}/fd", process.pid)).ok();
            process.open_files = count.and_then(|count| u32::try_from(count).ok());
        }
        let entry = CachedProcess {
            start_ticks: process.start_ticks,
            cpu_ticks: process.cpu_ticks,
            name: process.name.clone(),
            detail: process.detail.clone(),
            io: process.io,
        };
        cached.insert(process.pid, entry);
    }
    cache.processes = cached;
}

/// CPU time since the last run in clock ticks; at least 1 for a new process.
fn used_ticks(cache: &ProcessCache, process: &RawProcess) -> u64 {
    match cache.processes.get(&process.pid).filter(|p| p.start_ticks == process.start_ticks) {
        Some(previous) => process.cpu_ticks.saturating_sub(previous.cpu_ticks),
        None => process.cpu_ticks.max(1),
    }
}

/// Marks the `top` processes by CPU since the last run and the `top` processes by memory.
fn top_candidates(cache: &ProcessCache, processes: &[RawProcess], top: usize) -> Vec<bool> {
    let largest = |key: &dyn Fn(&RawProcess) -> u64| {
        let mut order: Vec<usize> = (0..processes.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(key(&processes[index])));
        order.truncate(top);
        order
    };
    let mut candidates = vec![false; processes.len()];
    for index in largest(&|p| used_ticks(cache, p)).into_iter().chain(largest(&|p| p.memory_bytes)) {
        candidates[index] = true;
    }
    candidates
}

/// Reads `read_bytes` and `write_bytes` of `/proc/PID/io`, the bytes transferred from and to
/// storage. `None` for processes of other users without privileges.
fn read_io(source: &dyn Source, pid: u32) -> Option<(u64, u64)> {
    let mut buffer = Vec::new();
    source.read(&format!("/proc/{pid}/io"), &mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer);
    let get = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse::<u64>().ok())
    };
    Some((get("read_bytes")?, get("write_bytes")?))
}

fn read_detail(
    source: &dyn Source,
    command_line: CommandLine,
    pid: u32,
    users: &mut UserNames,
) -> ProcessDetail {
    let mut buffer = Vec::new();
    let uid = source.read(&format!("/proc/{pid}/status"), &mut buffer).ok().and_then(|()| {
        let text = String::from_utf8_lossy(&buffer);
        text.lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().next()?.parse::<u32>().ok())
    });
    let user = uid.map(|uid| users.name(source, uid)).unwrap_or_default();
    let command = match command_line {
        CommandLine::None => String::new(),
        _ if source.read(&format!("/proc/{pid}/cmdline"), &mut buffer).is_err() => String::new(),
        CommandLine::Masked => perfwatch_redact::mask_secrets(&buffer),
        CommandLine::Full => perfwatch_redact::unmasked(&buffer),
    };
    ProcessDetail { user: user.into(), command: command.into() }
}

impl UserNames {
    fn start_run(&mut self) {
        self.is_fresh = false;
    }

    /// Name of a user, or the user id as text. An unknown user may have been added since the last read, so
    /// passwd(5) is read again, once in a run. Users of a directory service have no name here.
    fn name(&mut self, source: &dyn Source, uid: u32) -> String {
        if !self.names.contains_key(&uid) && !self.is_fresh {
            self.is_fresh = true;
            let passwd = crate::parse::text(source, "/etc/passwd").unwrap_or_default();
            let user = |line: &str| {
                let mut fields = line.split(':');
                let name = fields.next().filter(|name| !name.is_empty())?;
                Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
            };
            self.names = passwd.lines().filter_map(user).collect();
        }
        self.names.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;

//! Processes from `/proc/PID` (proc_pid_stat(5), proc_pid_io(5)): numbers by state, and the raw
//! counters from which `derive` selects the top processes.
//!
//! Every process costs a small file per tick: the counters of the scheduler for a process that does not run, the
//! longer file of its state for the others. Owner, command line, I/O and open files are read only
//! for candidates of the top processes: those that recently used CPU, and the largest in memory.

use crate::cache::{CachedProcess, MAX_CACHED_RUNS, ProcessCache, Scheduling, UserNames};
use crate::collector::to_f64;
use crate::parse::parse_error;
use crate::reading::{ProcessDetail, RawProcess};
use crate::source::PROCESSES;
use crate::{Cadence, CollectContext, CollectError, Collector, CommandLine, Source};
use perfwatch_model::{MetricDef, Unit::*};
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

/// Number of runs after which a process is read again that does not run.
const MAX_RETAINED_RUNS: u32 = 256;

/// Process of a run.
struct CurrentProcess {
    process: RawProcess,
    /// Scheduler counters, read before the process.
    scheduling: Option<Scheduling>,
    /// The same process in the previous run.
    previous: Option<CachedProcess>,
    /// True if the process has not run since the previous run, so that its values are those of that run.
    is_retained: bool,
}

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    let mut pids = cx.source.process_ids().map_err(|error| CollectError::from_io(PROCESSES, &error))?;
    pids.sort_unstable();
    let boot_ms = cx.cache.processes.boot_ms(cx.source);
    let is_first_run = cx.cache.processes.processes.is_empty();
    let mut cached = std::mem::take(&mut cx.cache.processes.processes).into_iter().peekable();
    let mut reader = ProcessReader::new(cx.source, boot_ms, cx.cache.processes.runs);
    let mut processes = Vec::with_capacity(pids.len());
    for pid in pids {
        while cached.next_if(|cached| cached.process.pid < pid).is_some() {}
        match reader.read(pid, cached.next_if(|cached| cached.process.pid == pid)) {
            Ok(process) => processes.extend(process),
            Err(error) => cx.out.record_error(error.to_string()),
        }
    }
    if processes.is_empty() {
        let first_error = cx.out.part.errors.first().cloned();
        return Err(first_error.map_or(CollectError::NotAvailable, CollectError::Failed));
    }
    read_details(cx, &mut reader, &mut processes, is_first_run);
    let cache = processes
        .iter()
        .map(|current| CachedProcess { process: current.process.clone(), scheduling: current.scheduling });
    cx.cache.processes.processes = cache.collect();
    let processes: Vec<RawProcess> = processes.into_iter().map(|current| current.process).collect();
    if hides_processes(cx.source, &processes) {
        cx.out.record_error(
            "/proc is mounted with hidepid: only own processes are visible, so the totals are absent",
        );
    } else {
        push_state_counts(cx, &processes);
    }
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

/// Reads files of processes with one path and one buffer.
struct ProcessReader<'a> {
    source: &'a dyn Source,
    page_size: u64,
    boot_ms: i64,
    /// Number of the run.
    run: u32,
    path: String,
    buffer: Vec<u8>,
}

impl<'a> ProcessReader<'a> {
    fn new(source: &'a dyn Source, boot_ms: i64, run: u32) -> Self {
        let (path, buffer) = (String::new(), Vec::new());
        Self { source, page_size: source.page_size(), boot_ms, run, path, buffer }
    }

    /// Content of a file of a process; `None` if the process ended or the file is not readable.
    fn file(&mut self, pid: u32, name: &str) -> Option<&[u8]> {
        self.set_path(pid, name);
        self.source.read(&self.path, &mut self.buffer).ok()?;
        Some(&self.buffer)
    }

    fn set_path(&mut self, pid: u32, name: &str) {
        use std::fmt::Write as _;
        self.path.clear();
        let _ = write!(self.path, "{PROCESSES}/{pid}/{name}");
    }

    /// Reads a process; `None` if it ended after the listing. If the scheduler did not run a process of a
    /// single thread since the previous run, its CPU time, state, name and threads are those of that run. Its
    /// memory can change, and its parent can end: `read_details` reads the candidates of the top processes
    /// again, and all are read again after [`MAX_RETAINED_RUNS`] runs.
    fn read(
        &mut self,
        pid: u32,
        previous: Option<CachedProcess>,
    ) -> Result<Option<CurrentProcess>, CollectError> {
        let is_single = |cached: &CachedProcess| cached.process.threads == 1 && cached.process.state != 'R';
        let scheduling = match previous.as_ref().is_some_and(is_single) {
            true => self.file(pid, "schedstat").and_then(Scheduling::parse),
            false => None,
        };
        let is_due = self.run.wrapping_add(pid).is_multiple_of(MAX_RETAINED_RUNS);
        if let Some(cached) = previous.as_ref().filter(|cached| !is_due && cached.scheduling == scheduling)
            && scheduling.is_some()
        {
            let process = RawProcess { open_files: None, ..cached.process.clone() };
            return Ok(Some(CurrentProcess { process, scheduling, previous, is_retained: true }));
        }
        let name = previous.as_ref().map(|cached| &cached.process.name);
        let Some(process) = self.read_stat(pid, name)? else { return Ok(None) };
        // The pid may have been reused.
        let previous = previous.filter(|cached| cached.process.start_ticks == process.start_ticks);
        Ok(Some(CurrentProcess { process, scheduling, previous, is_retained: false }))
    }

    fn read_stat(&mut self, pid: u32, name: Option<&Arc<str>>) -> Result<Option<RawProcess>, CollectError> {
        let page_size = self.page_size;
        let Some(stat) = self.file(pid, "stat") else { return Ok(None) };
        let Some(mut process) = parse_stat(stat, page_size, name) else {
            return Err(parse_error(&self.path, &String::from_utf8_lossy(&self.buffer)));
        };
        // Clock ticks are 1/100 s for programs on every architecture (USER_HZ).
        let started_ms = i64::try_from(process.start_ticks).unwrap_or(0).saturating_mul(10);
        process.started_ms = self.boot_ms.saturating_add(started_ms);
        Ok(Some(process))
    }
}

impl Scheduling {
    /// Parses `/proc/PID/schedstat` (kernel document scheduler/sched-stats.rst). `None` for a process that
    /// never ran, as for all processes of a kernel that does not count.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut numbers = text.split_ascii_whitespace().map_while(|word| word.parse::<u64>().ok());
        let (run_ns, wait_ns, slices) = (numbers.next()?, numbers.next()?, numbers.next()?);
        (slices > 0).then_some(Self { run_ns, wait_ns, slices })
    }
}

/// Parses `pid (comm) S ppid …`. The name may contain spaces and parentheses; the last closing
/// parenthesis ends it. An equal `known_name` is shared.
fn parse_stat(bytes: &[u8], page_size: u64, known_name: Option<&Arc<str>>) -> Option<RawProcess> {
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
        name: known_name
            .filter(|known| known.as_bytes() == name)
            .map_or_else(|| String::from_utf8_lossy(name).into(), Arc::clone),
        state,
        cpu_ticks: user.checked_add(system)?,
        threads: u32::try_from(threads).ok()?,
        start_ticks,
        memory_bytes: pages.saturating_mul(page_size),
        ..RawProcess::default()
    })
}

/// Reads I/O, owner, command line and open files of candidates of the top processes.
fn read_details(
    cx: &mut CollectContext<'_>,
    reader: &mut ProcessReader<'_>,
    processes: &mut [CurrentProcess],
    is_first_run: bool,
) {
    let users = &mut cx.cache.processes.users;
    users.start_run();
    let candidates = top_candidates(processes, cx.options.top_processes);
    for (current, is_candidate) in processes.iter_mut().zip(candidates) {
        let pid = current.process.pid;
        if is_candidate
            && current.is_retained
            && let Ok(Some(process)) = reader.read_stat(pid, Some(&current.process.name))
        {
            current.process = process;
        }
        // A process that used no CPU since the last run did no storage I/O worth a read.
        let is_active = is_first_run || current.process.state == 'D' || current.used_ticks() > 0;
        let CurrentProcess { process, previous, .. } = current;
        let previous = previous.as_ref().map(|cached| &cached.process);
        process.io = match previous {
            Some(previous) if !is_active => previous.io,
            _ => reader.file(pid, "io").and_then(parse_io),
        };
        let has_new_io = previous.is_none_or(|previous| previous.io != process.io);
        // After exec, a process has another name and another command line.
        process.detail = previous
            .filter(|previous| previous.name == process.name)
            .and_then(|previous| previous.detail.clone());
        if is_candidate || (is_active && has_new_io && process.io.is_some()) {
            if process.detail.is_none() {
                process.detail = Some(Arc::new(read_detail(reader, cx.options.command_line, pid, users)));
            }
            reader.set_path(pid, "fd");
            let count = reader.source.count(&reader.path).ok();
            process.open_files = count.and_then(|count| u32::try_from(count).ok());
        }
    }
}

impl CurrentProcess {
    /// CPU time since the last run in clock ticks; at least 1 for a new process.
    fn used_ticks(&self) -> u64 {
        match &self.previous {
            Some(previous) => self.process.cpu_ticks.saturating_sub(previous.process.cpu_ticks),
            None => self.process.cpu_ticks.max(1),
        }
    }
}

/// Marks the `top` processes by CPU since the last run and the `top` processes by memory.
fn top_candidates(processes: &[CurrentProcess], top: usize) -> Vec<bool> {
    let largest = |key: &dyn Fn(&CurrentProcess) -> u64| {
        let mut order: Vec<usize> =
            (0..processes.len()).filter(|&index| key(&processes[index]) > 0).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(key(&processes[index])));
        order.truncate(top);
        order
    };
    let mut candidates = vec![false; processes.len()];
    for index in largest(&CurrentProcess::used_ticks).into_iter().chain(largest(&|p| p.process.memory_bytes))
    {
        candidates[index] = true;
    }
    candidates
}

/// Parses `read_bytes` and `write_bytes` of `/proc/PID/io`, the bytes transferred from and to storage.
fn parse_io(bytes: &[u8]) -> Option<(u64, u64)> {
    let text = String::from_utf8_lossy(bytes);
    let get = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse::<u64>().ok())
    };
    Some((get("read_bytes")?, get("write_bytes")?))
}

fn read_detail(
    reader: &mut ProcessReader<'_>,
    command_line: CommandLine,
    pid: u32,
    users: &mut UserNames,
) -> ProcessDetail {
    let uid = reader.file(pid, "status").and_then(|status| {
        let text = String::from_utf8_lossy(status);
        text.lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().next()?.parse::<u32>().ok())
    });
    let user = uid.map(|uid| users.name(reader.source, uid)).unwrap_or_default();
    let command = match command_line {
        CommandLine::None => None,
        CommandLine::Masked => reader.file(pid, "cmdline").map(perfwatch_redact::mask_secrets),
        CommandLine::Full => reader.file(pid, "cmdline").map(perfwatch_redact::unmasked),
    };
    ProcessDetail { user: user.into(), command: command.unwrap_or_default().into() }
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

//! Processes from `/proc/PID` (proc_pid_stat(5), proc_pid_io(5)): how many in which state,
//! and the raw numbers from which `derive` picks the largest.
//!
//! Every process costs one small file a tick. Owner, command line, I/O and open files are
//! read only for those that may be shown: the ones that just used the processor, and the
//! largest in memory.

use crate::collector::to_f64;
use crate::linux::command_line::mask_secrets;
use crate::parse::parse_error;
use crate::reading::{ProcessDetail, RawProcess};
use crate::{Cadence, CollectContext, CollectError, Collector, CommandLine, Source};
use perfwatch_model::{MetricDef, Unit::*};
use std::collections::HashMap;
use std::sync::Arc;

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("processes.total", Count, 0, "Processes, kernel threads included."),
    MetricDef::gauge("processes.threads", Count, 0, "Threads."),
    MetricDef::gauge("processes.running", Count, 0, "Runnable processes."),
    MetricDef::gauge("processes.sleeping", Count, 0, "Processes in interruptible sleep."),
    MetricDef::gauge("processes.blocked", Count, 0, "Processes in uninterruptible sleep."),
    MetricDef::gauge("processes.stopped", Count, 0, "Stopped or traced processes."),
    MetricDef::gauge("processes.zombie", Count, 0, "Zombie processes."),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "processes", metrics: METRICS, cadence: Cadence::EveryTick, read };

/// What makes the next read cheap.
#[derive(Default)]
pub(crate) struct ProcessCache {
    processes: HashMap<u32, CachedProcess>,
    users: HashMap<u32, String>,
    boot_ms: Option<i64>,
}

struct CachedProcess {
    start_ticks: u64,
    cpu_ticks: u64,
    name: Arc<str>,
    detail: Option<Arc<ProcessDetail>>,
    io: Option<(u64, u64)>,
}

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    const FOLDER: &str = "/proc";
    let names = cx.source.list(FOLDER).map_err(|error| CollectError::from_io(FOLDER, &error))?;
    let mut pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    let (page, mut buffer, mut path) = (cx.source.page_size(), Vec::with_capacity(1024), String::new());
    let boot_ms = *cx.cache.processes.boot_ms.get_or_insert_with(|| boot_ms(cx.source));
    let mut processes = Vec::with_capacity(pids.len());
    for pid in pids {
        use std::fmt::Write as _;
        path.clear();
        let _ = write!(path, "/proc/{pid}/stat");
        // A process that ended between the listing and here is no error.
        if cx.source.read(&path, &mut buffer).is_err() {
            continue;
        }
        match parse_stat(&buffer, page) {
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
        let why = cx.out.part.errors.first().cloned();
        return Err(why.map_or(CollectError::NotAvailable, CollectError::Failed));
    }
    push_state_counts(cx, &processes);
    read_details(cx, &mut processes);
    cx.out.part.processes = processes;
    Ok(())
}

fn push_state_counts(cx: &mut CollectContext<'_>, processes: &[RawProcess]) {
    let of = |states: &str| to_f64(processes.iter().filter(|p| states.contains(p.state)).count() as u64);
    cx.out.gauge("processes.total", to_f64(processes.len() as u64));
    cx.out.gauge("processes.threads", to_f64(processes.iter().map(|p| u64::from(p.threads)).sum()));
    for (metric, states) in [
        ("processes.running", "R"),
        ("processes.sleeping", "SI"),
        ("processes.blocked", "D"),
        ("processes.stopped", "Tt"),
        ("processes.zombie", "Z"),
    ] {
        cx.out.gauge(metric, of(states));
    }
}

fn boot_ms(source: &dyn Source) -> i64 {
    let stat = crate::parse::text(source, "/proc/stat").unwrap_or_default();
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
    seconds.unwrap_or_default().saturating_mul(1000)
}

/// `pid (comm) S ppid …`; the name may hold spaces and parentheses, so the last one ends it.
fn parse_stat(bytes: &[u8], page: u64) -> Option<RawProcess> {
    let open = bytes.iter().position(|&b| b == b'(')?;
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let name = bytes.get(open + 1..close)?;
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    let mut words = rest.split_ascii_whitespace();
    let state = words.next()?.chars().next()?;
    // The wanted ones in their order, counted from ppid = 0; some others may be negative.
    let mut at = 0;
    let mut number = |index: usize| {
        let word = words.nth(index - at)?;
        at = index + 1;
        word.parse::<u64>().ok()
    };
    let (user, system, threads, start_ticks, pages) =
        (number(10)?, number(11)?, number(16)?, number(18)?, number(20)?);
    Some(RawProcess {
        pid: std::str::from_utf8(&bytes[..open]).ok()?.trim().parse().ok()?,
        name: String::from_utf8_lossy(name).into(),
        state,
        cpu_ticks: user.checked_add(system)?,
        threads: u32::try_from(threads).ok()?,
        start_ticks,
        memory_bytes: pages.saturating_mul(page),
        ..RawProcess::default()
    })
}

/// Reads the rest for processes that may be shown, and remembers for the next time.
fn read_details(cx: &mut CollectContext<'_>, processes: &mut [RawProcess]) {
    let top = cx.options.top_processes;
    let recall = &mut cx.cache.processes;
    let first = recall.processes.is_empty();
    let busy = |recall: &ProcessCache, p: &RawProcess| match recall
        .processes
        .get(&p.pid)
        .filter(|k| k.start_ticks == p.start_ticks)
    {
        Some(known) => p.cpu_ticks.saturating_sub(known.cpu_ticks),
        // New since the last look: all it did, it did just now.
        None => p.cpu_ticks.max(1),
    };
    // Storage I/O costs processor time, so who used none since the last look did none to speak of.
    let active: Vec<bool> =
        processes.iter().map(|p| first || p.state == 'D' || busy(recall, p) > 0).collect();
    let largest = |key: &dyn Fn(&RawProcess) -> u64| {
        let mut order: Vec<usize> = (0..processes.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(key(&processes[at])));
        order.truncate(top);
        order
    };
    let mut chosen = vec![false; processes.len()];
    for at in largest(&|p| busy(recall, p)).into_iter().chain(largest(&|p| p.memory_bytes)) {
        chosen[at] = true;
    }
    let mut known = HashMap::with_capacity(processes.len());
    for (at, process) in processes.iter_mut().enumerate() {
        let before = recall.processes.remove(&process.pid).filter(|k| k.start_ticks == process.start_ticks);
        process.io = match &before {
            Some(before) if !active[at] => before.io,
            _ => read_io(cx.source, process.pid),
        };
        let moved = before.as_ref().is_none_or(|before| before.io != process.io);
        // A program started by exec has another name, and another command line.
        process.detail = before.and_then(|before| (before.name == process.name).then_some(before.detail)?);
        if chosen[at] || (active[at] && moved && process.io.is_some()) {
            if process.detail.is_none() {
                process.detail = Some(Arc::new(read_detail(
                    cx.source,
                    cx.options.command_line,
                    process.pid,
                    &mut recall.users,
                )));
            }
            let count = cx.source.count(&format!("/proc/{}/fd", process.pid)).ok();
            process.handles = count.and_then(|count| u32::try_from(count).ok());
        }
        let name = process.name.clone();
        let memory = CachedProcess {
            start_ticks: process.start_ticks,
            cpu_ticks: process.cpu_ticks,
            name,
            detail: process.detail.clone(),
            io: process.io,
        };
        known.insert(process.pid, memory);
    }
    recall.processes = known;
}

/// `read_bytes` and `write_bytes` of /proc/PID/io: what really went to storage. Other users'
/// are not for an ordinary user to see.
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
    show: CommandLine,
    pid: u32,
    users: &mut HashMap<u32, String>,
) -> ProcessDetail {
    let mut buffer = Vec::new();
    let uid = source.read(&format!("/proc/{pid}/status"), &mut buffer).ok().and_then(|()| {
        let text = String::from_utf8_lossy(&buffer);
        text.lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().next()?.parse::<u32>().ok())
    });
    if users.is_empty() {
        *users = read_users(source);
    }
    let user = uid.map(|uid| users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())).unwrap_or_default();
    let command = match show {
        CommandLine::None => String::new(),
        _ if source.read(&format!("/proc/{pid}/cmdline"), &mut buffer).is_err() => String::new(),
        CommandLine::Masked => mask_secrets(&buffer),
        CommandLine::Full => crate::linux::command_line::unmasked(&buffer),
    };
    ProcessDetail { user: user.into(), command: command.into() }
}

/// uid → name from passwd(5). Users of a directory service show by their number.
fn read_users(source: &dyn Source) -> HashMap<u32, String> {
    let passwd = crate::parse::text(source, "/etc/passwd").unwrap_or_default();
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    passwd.lines().filter_map(user).collect()
}

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;

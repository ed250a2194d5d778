//! Tests of the processes collector over small captures.

use super::*;
use crate::linux::test_util::{collect_capture, format_part};
use crate::{Capture, CollectorOptions, Part, SampleSink};

fn stat(pid: u32, name: &str, state: char, ticks: u64, rss: u64) -> String {
    format!(
        "=== /proc/{pid}/stat\n{pid} ({name}) {state} 1 1 1 0 -1 4194560 1 2 3 4 {ticks} 0 0 0 20 0 3 0 500 1000 {rss} 18446744073709551615 1\n"
    )
}

fn capture(text: &str) -> Capture {
    Capture::parse(text.as_bytes()).unwrap()
}

#[test]
fn process_names_may_contain_any_bytes() {
    for name in ["bash", "a) R (b", "", "((", "kworker/0:1-ev ents", "tab\there"] {
        let text = stat(7, name, 'S', 42, 10);
        let line = text.split_once('\n').unwrap().1;
        let process = parse_stat(line.as_bytes(), 4096, None).unwrap();
        assert_eq!((&*process.name, process.pid, process.cpu_ticks), (name, 7, 42));
        assert_eq!(process.parent_pid, Some(1));
        assert_eq!((process.threads, process.start_ticks, process.memory_bytes), (3, 500, 40960));
    }
    for invalid in
        ["", "7", "7 (x", "7 (x) S 1 1", "x (y) S 1 1 1 0 -1 0 1 2 3 4 5 0 0 0 20 0 3 0 500 1000 1"]
    {
        assert!(parse_stat(invalid.as_bytes(), 4096, None).is_none(), "{invalid:?}");
    }
}

#[test]
fn counts_states_and_reads_details() {
    let text = format!(
        "=== /proc list\n1\nself\n2\n3\n9\n{}{}{}=== /proc/1/status\nName:\tinit\nUid:\t1000\t0\t0\t0\n=== /etc/passwd\nroot:x:0:0::/:/bin/sh\nbob:x:1000:1::/:\nbad\n\
         === /proc/1/cmdline hex\n2f736269 6e2f69 6e69 7400 2d2d70 61 73733d78 00\n=== /proc/1/io\nrchar: 1\nread_bytes: 100\nwrite_bytes: 200\n=== /proc/2/io error\ndenied\n\
         === /proc/1/fd count\n12\n=== /proc/stat\nbtime 1000\n=== /proc/3/stat\nbroken\n",
        stat(1, "init", 'S', 5, 100),
        stat(2, "kthread", 'I', 0, 0),
        stat(4, "not listed", 'R', 0, 0),
    );
    let part = collect_capture(&COLLECTOR, &capture(&text), &CollectorOptions::default()).unwrap();
    assert_eq!(
        format_part(&part),
        "processes.total 2\nprocesses.threads 6\nprocesses.running 0\nprocesses.sleeping 2\nprocesses.blocked 0\nprocesses.stopped 0\nprocesses.zombie 0\n"
    );
    let init = &part.processes[0];
    let detail = init.detail.as_ref().unwrap();
    assert_eq!((&*detail.user, &*detail.command), ("bob", "/sbin/init --pass=***"));
    assert_eq!((init.io, init.open_files, init.started_ms), (Some((100, 200)), Some(12), 1_005_000));
    assert_eq!(part.processes[1].io, None);
    assert_eq!(part.errors, ["/proc/3/stat: unexpected value \"broken\\n\""]);
}

/// Source that records the paths of read files.
struct PathRecorder<'a>(&'a Capture, std::sync::Mutex<Vec<String>>);

impl Source for PathRecorder<'_> {
    fn read(&self, path: &str, out: &mut Vec<u8>) -> std::io::Result<()> {
        self.1.lock().unwrap().push(path.to_owned());
        self.0.read(path, out)
    }
    fn list(&self, path: &str) -> std::io::Result<Vec<String>> {
        self.0.list(path)
    }
    fn count(&self, path: &str) -> std::io::Result<u64> {
        self.0.count(path)
    }
    fn link(&self, path: &str) -> std::io::Result<String> {
        self.0.link(path)
    }
    fn usage(&self, mount: &std::path::Path) -> std::io::Result<crate::FsUsage> {
        self.0.usage(mount)
    }
    fn page_size(&self) -> u64 {
        4096
    }
}

#[test]
fn idle_processes_read_one_file() {
    let pids: Vec<String> = (1..=50).map(|pid| pid.to_string()).collect();
    let capture_with = |ticks: u64| {
        let stats: String =
            (1..=50).map(|pid| stat(pid, "p", 'S', if pid == 7 { ticks } else { 1 }, 10)).collect();
        let io: String = (1..=50)
            .map(|pid| format!("=== /proc/{pid}/io\nread_bytes: {ticks}\nwrite_bytes: 0\n"))
            .collect();
        capture(&format!("=== /proc list\n{}\n{stats}{io}", pids.join("\n")))
    };
    let options = CollectorOptions { top_processes: 2, ..CollectorOptions::default() };
    let mut cache = crate::CollectorCache::default();
    let mut collect = |capture: &Capture| {
        let source = PathRecorder(capture, Default::default());
        let mut cx = CollectContext {
            source: &source,
            options: &options,
            cache: &mut cache,
            out: SampleSink::new(METRICS),
        };
        read(&mut cx).unwrap();
        let part = cx.out.part;
        let opened = source.1.into_inner().unwrap();
        (part, opened.into_iter().filter(|path| path.ends_with("/io")).collect::<Vec<_>>())
    };
    assert_eq!(collect(&capture_with(1)).1.len(), 50);
    let (part, opened) = collect(&capture_with(9));
    assert_eq!(opened, ["/proc/7/io"]);
    // Values that were not read again are retained.
    assert_eq!((part.processes[6].io, part.processes[5].io), (Some((9, 0)), Some((1, 0))));
}

/// Runs the collector over several captures with the same cache.
fn collect_in_sequence(captures: &[String]) -> Vec<Part> {
    let mut cache = crate::CollectorCache::default();
    let options = CollectorOptions::default();
    let run = |text: &String| {
        let source = capture(text);
        let mut cx = CollectContext {
            source: &source,
            options: &options,
            cache: &mut cache,
            out: SampleSink::new(COLLECTOR.metrics),
        };
        (COLLECTOR.read)(&mut cx).unwrap();
        cx.out.part
    };
    captures.iter().map(run).collect()
}

#[test]
fn start_times_follow_a_step_of_the_clock_but_not_its_jitter() {
    let at = |btime: u64| {
        format!("=== /proc list\n1\n{}=== /proc/stat\nbtime {btime}\n", stat(1, "init", 'S', 5, 100))
    };
    let parts = collect_in_sequence(&[at(3_600), at(1_790_000_000), at(1_790_000_001), at(1_789_999_999)]);
    let started: Vec<i64> = parts.iter().map(|part| part.processes[0].started_ms).collect();
    let stepped = 1_790_000_005_000;
    assert_eq!(started, [3_605_000, stepped, stepped, stepped]);
}

#[test]
fn users_added_later_have_a_name() {
    let host = |passwd: &str, pids: &[u32]| {
        let mut text = format!("=== /etc/passwd\n{passwd}=== /proc list\n");
        pids.iter().for_each(|pid| text.push_str(&format!("{pid}\n")));
        for &pid in pids {
            text.push_str(&stat(pid, "app", 'S', 5, 100));
            text.push_str(&format!("=== /proc/{pid}/status\nUid:\t{}\t0\t0\t0\n", 1000 + pid));
        }
        text
    };
    let before = "ann:x:1001:1::/:\n";
    let after = "ann:x:1001:1::/:\nbob:x:1002:1::/:\n";
    let parts = collect_in_sequence(&[host(before, &[1]), host(after, &[1, 2, 3])]);
    let user = |part: &Part, index: usize| part.processes[index].detail.as_ref().unwrap().user.to_string();
    assert_eq!(user(&parts[0], 0), "ann");
    assert_eq!([1, 2].map(|index| user(&parts[1], index)), ["bob", "1003"]);
}

#[test]
fn totals_are_absent_if_processes_are_hidden() {
    let host = |pid: u32, options: &str| {
        format!(
            "=== /proc list\n{pid}\n{}=== /proc/self/mountinfo\n22 1 0:21 / /proc rw - proc proc rw{options}\n",
            stat(pid, "own", 'S', 5, 100)
        )
    };
    for (pid, options, is_hidden) in [
        (1, ",hidepid=2", false),
        (7, "", false),
        (7, ",hidepid=off", false),
        (7, ",gid=4,hidepid=invisible", true),
        (7, ",hidepid=1", true),
    ] {
        let part = collect_in_sequence(&[host(pid, options)]).remove(0);
        assert_eq!(part.samples.is_empty(), is_hidden, "{pid} {options}");
        assert_eq!(part.errors.len(), usize::from(is_hidden));
        assert_eq!(part.processes.len(), 1);
    }
}

/// Capture of a process with a single thread, its memory in pages and the counters of its scheduler.
fn single(ticks: u64, rss: u64, parent: u32, schedstat: &str) -> String {
    let stat = stat(1, "init", 'S', ticks, rss).replace(" 0 3 0 500 ", " 0 1 0 500 ");
    let stat = stat.replace(" S 1 1 1 ", &format!(" S {parent} 1 1 "));
    format!("=== /proc list\n1\n{stat}=== /proc/1/schedstat\n{schedstat}\n")
}

#[test]
fn processes_that_did_not_run_are_not_read_again() {
    // Without memory, the process is no candidate of the top processes.
    let captures = [
        single(5, 0, 3, "100 20 7"),
        single(5, 0, 3, "100 20 7"),
        single(9, 0, 4, "100 20 7"),
        single(9, 0, 4, "100 20 8"),
    ];
    let ticks: Vec<u64> =
        collect_in_sequence(&captures).iter().map(|part| part.processes[0].cpu_ticks).collect();
    // The second run reads the counters for the first time. The third capture is impossible: a process cannot use CPU
    // without running, so that it shows what was read.
    assert_eq!(ticks, [5, 5, 5, 9]);
}

#[test]
fn memory_and_parent_of_top_processes_are_current() {
    let counters = "100 20 7";
    let captures = [single(5, 90, 3, counters), single(5, 90, 3, counters), single(5, 80, 4, counters)];
    let parts = collect_in_sequence(&captures);
    let process = |index: usize| {
        let process = &parts[index].processes[0];
        (process.memory_bytes / 4096, process.parent_pid)
    };
    assert_eq!([process(1), process(2)], [(90, Some(3)), (80, Some(4))]);
}

#[test]
fn idle_processes_are_read_again_after_some_runs() {
    let mut captures = vec![single(5, 0, 3, "100 20 7"); 2];
    captures.extend(vec![single(5, 0, 4, "100 20 7"); MAX_RETAINED_RUNS as usize]);
    let parts = collect_in_sequence(&captures);
    assert_eq!(parts[2].processes[0].parent_pid, Some(3));
    assert_eq!(parts.last().unwrap().processes[0].parent_pid, Some(4));
}

#[test]
fn scheduler_counters_that_do_not_count_are_ignored() {
    for (text, expected) in [
        ("100 20 7\n", Some(Scheduling { run_ns: 100, wait_ns: 20, slices: 7 })),
        ("0 0 0\n", None),
        ("100 20\n", None),
        ("a b c\n", None),
        ("", None),
    ] {
        assert_eq!(Scheduling::parse(text.as_bytes()), expected, "{text:?}");
    }
    let captures = [single(5, 0, 3, "0 0 0"), single(5, 0, 3, "0 0 0"), single(9, 0, 3, "0 0 0")];
    let parts = collect_in_sequence(&captures);
    assert_eq!(parts[2].processes[0].cpu_ticks, 9);
}

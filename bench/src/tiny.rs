//! Tiny runs: `perfwatch-bench smoke` runs every benchmark once with minimal numbers, to show that each still works.
//! Their results mean nothing.

use std::process::{Command, Stdio};
use std::time::Duration;

/// Environment variable of a tiny run.
const VARIABLE: &str = "PERFWATCH_BENCH_TINY";
/// Longest fixed time of a benchmark in a tiny run.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Benchmarks with the arguments of their tiny run.
pub(crate) const BENCHMARKS: &[(&str, &[&str])] = &[
    ("alerts", &["20", "5"]),
    ("collect", &["3"]),
    ("live", &["4", "3"]),
    ("load", &["2", "2", "2", "1"]),
    ("ingest", &["2"]),
    ("history", &["1", "sqlite"]),
    ("budget", &["1", "sqlite"]),
    ("rate-limits", &["4", "1"]),
    ("agentless", &["2", "1", "2"]),
    ("agent", &["1"]),
    ("hostile", &["1", "2", "1"]),
    ("fleet", &["13", "agents=5", "viewers=2", "hubs=2", "seconds=9"]),
    ("memory", &["2"]),
    ("idle", &["1"]),
    ("explore", &["2", "1"]),
    ("top", &["1"]),
];

/// Returns whether this is a tiny run.
pub(crate) fn is_tiny() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Fixed time of a benchmark: unchanged, or short in a tiny run.
pub(crate) fn shorten(pause: Duration) -> Duration {
    if is_tiny() { pause.min(MAX_PAUSE) } else { pause }
}

/// Number of repetitions: unchanged, or a single one in a tiny run.
pub(crate) fn repetitions(count: u64) -> u64 {
    if is_tiny() { 1 } else { count }
}

/// Runs all benchmarks, or those whose names are given, at the same time: most of them wait.
pub(crate) fn smoke(names: &[String]) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let is_selected = |name: &str| names.is_empty() || names.iter().any(|selected| selected == name);
    let children = BENCHMARKS.iter().filter(|(name, _)| is_selected(name)).map(|(name, arguments)| {
        let mut command = Command::new(&program);
        command.arg(name).args(*arguments).env(VARIABLE, "1").stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        Ok::<_, std::io::Error>((*name, std::thread::spawn(move || child.wait_with_output())))
    });
    let mut failed = Vec::new();
    for (name, thread) in children.collect::<Result<Vec<_>, _>>()? {
        let output = thread.join().map_err(|_| anyhow::anyhow!("thread of {name}"))??;
        let text = String::from_utf8_lossy(&output.stdout);
        // Senders report their errors and go on.
        if output.status.success() && !text.trim().is_empty() && !text.contains("sender failed") {
            println!("{name}: ok");
        } else {
            println!("{name}: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
            failed.push(name);
        }
    }
    anyhow::ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn make_bench_runs_every_benchmark() {
        let makefile = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../Makefile");
        let makefile = std::fs::read_to_string(makefile).expect("Makefile");
        for (name, _) in BENCHMARKS {
            let line = format!("\ttarget/quick/perfwatch-bench {name}\n");
            assert!(makefile.contains(&line), "make bench does not run {name}");
        }
    }
}

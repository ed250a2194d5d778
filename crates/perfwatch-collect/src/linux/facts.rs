//! Host facts, which change rarely: distribution, kernel, processor, memory, boot time.

use crate::linux::cpu_model::cpu_model;
use crate::parse::text;
use crate::{Cadence, CollectContext, CollectError, Collector};
use perfwatch_model::HostFacts;

pub(crate) const COLLECTOR: Collector =
    Collector { name: "facts", metrics: &[], cadence: Cadence::AtMostEvery(300), read };

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    let get = |path: &str| text(cx.source, path).unwrap_or_default();
    let kernel = get("/proc/sys/kernel/osrelease").trim().to_owned();
    let cpuinfo = get("/proc/cpuinfo");
    let stat = get("/proc/stat");
    let meminfo = get("/proc/meminfo");
    let os_release = match get("/etc/os-release") {
        text if text.is_empty() => get("/usr/lib/os-release"),
        text => text,
    };
    let cores = stat
        .lines()
        .filter(|line| line.starts_with("cpu") && line[3..].starts_with(|c: char| c.is_ascii_digit()));
    let boot_time = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
    let memory_kb = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.split_ascii_whitespace().next()?.parse::<u64>().ok());
    cx.out.part.facts = Some(HostFacts {
        os: os_name(&os_release),
        kernel,
        arch: get("/proc/sys/kernel/arch").trim().to_owned(),
        cpu_model: cpu_model(&cpuinfo),
        cores: u32::try_from(cores.count()).unwrap_or_default(),
        memory_bytes: memory_kb.unwrap_or_default().saturating_mul(1024),
        boot_time_ms: boot_time.unwrap_or_default().saturating_mul(1000),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    Ok(())
}

/// Reads `PRETTY_NAME` of os-release(5), without quotes.
fn os_name(os_release: &str) -> String {
    let get = |key: &str| os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    get("PRETTY_NAME").or_else(|| get("NAME")).unwrap_or("Linux").trim().trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::collect_files;

    #[test]
    fn reads_facts() {
        let part = collect_files(
            &COLLECTOR,
            &[
                ("/etc/os-release", "NAME=Debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
                ("/proc/stat", "cpu 1\ncpu0 1\ncpu11 1\nbtime 1700000000\n"),
                ("/proc/cpuinfo", "processor\t: 0\nmodel name\t: Xeon: E5\n"),
                ("/proc/meminfo", "MemTotal:  2048 kB\n"),
                ("/proc/sys/kernel/osrelease", "6.1.0\n"),
            ],
        )
        .unwrap();
        let facts = part.facts.unwrap();
        assert_eq!(
            (facts.os.as_str(), facts.kernel.as_str(), facts.cpu_model.as_str()),
            ("Debian GNU/Linux 12 (bookworm)", "6.1.0", "Xeon: E5")
        );
        assert_eq!((facts.cores, facts.memory_bytes, facts.boot_time_ms), (2, 2_097_152, 1_700_000_000_000));
        let defaults = collect_files(&COLLECTOR, &[]).unwrap().facts.unwrap();
        assert_eq!(defaults.os, "Linux");
    }
}

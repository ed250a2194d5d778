//! System-wide values: uptime, logins, file descriptors, entropy, time synchronization.

use crate::collector::to_f64;
use crate::parse::{number, numbers, text};
use crate::{Cadence, CollectContext, CollectError, Collector, Source};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("system.uptime", Seconds, 0, "Time since boot.").rollup_last(),
    MetricDef::gauge("system.logged_in_users", Count, 0, "Logged-in users (utmp(5) or systemd sessions)."),
    MetricDef::gauge("system.entropy", Count, 0, "Available entropy in bits."),
    MetricDef::gauge(
        "system.time_synced",
        Flag,
        0,
        "1 if systemd-timesyncd has synchronized the clock; absent with other time services.",
    )
    .rollup_last(),
    MetricDef::gauge(
        "file_descriptors.allocated",
        Count,
        0,
        "Allocated file descriptors (file handles), system-wide.",
    ),
    MetricDef::gauge("file_descriptors.max", Count, 0, "Maximum number of file descriptors.").rollup_last(),
    MetricDef::gauge("file_descriptors.used_percent", Percent, 2, "Allocated file descriptors in percent."),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "system", metrics: METRICS, cadence: Cadence::EveryTick, read };

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    if let Ok(uptime) = text(cx.source, "/proc/uptime") {
        let seconds = uptime.split_ascii_whitespace().next().and_then(|word| word.parse::<f64>().ok());
        match seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0) {
            Some(seconds) => cx.out.gauge("system.uptime", seconds.floor()),
            None => cx.out.record_error(crate::parse::parse_error("/proc/uptime", &uptime).to_string()),
        }
    }
    if let Some(users) = logged_in_users(cx.source) {
        cx.out.gauge("system.logged_in_users", to_f64(users));
    }
    if let Ok(bits) = number::<u64>(cx.source, "/proc/sys/kernel/random/entropy_avail") {
        cx.out.gauge("system.entropy", to_f64(bits));
    }
    if let Ok(names) = cx.source.list("/run/systemd/timesync") {
        let synced = names.iter().any(|name| name == "synchronized");
        cx.out.gauge("system.time_synced", f64::from(u8::from(synced)));
    }
    // Allocated, free (always 0 since 2.6), maximum: proc_sys_fs(5).
    if let [allocated, free, max] = numbers(&text(cx.source, "/proc/sys/fs/file-nr").unwrap_or_default())[..]
    {
        let in_use = to_f64(allocated.saturating_sub(free));
        cx.out.gauge("file_descriptors.allocated", in_use);
        // 2^63 - 1 means "no limit"; a percentage of it has no meaning.
        if (1..1 << 53).contains(&max) {
            cx.out.gauge("file_descriptors.max", to_f64(max));
            cx.out.gauge("file_descriptors.used_percent", in_use / to_f64(max) * 100.0);
        }
    }
    Ok(())
}

fn logged_in_users(source: &dyn Source) -> Option<u64> {
    let mut utmp = Vec::new();
    if source.read("/run/utmp", &mut utmp).is_ok() {
        return Some(utmp_logins(&utmp));
    }
    let names = source.list("/run/systemd/sessions").ok()?;
    let is_login = |name: &&String| {
        !name.ends_with(".ref")
            && text(source, &format!("/run/systemd/sessions/{name}"))
                .is_ok_and(|s| s.lines().any(|l| l == "CLASS=user"))
    };
    Some(names.iter().filter(is_login).count() as u64)
}

/// Counts utmp records of type 7 (login). A record has 384 bytes on 64-bit Linux; its first two
/// bytes are the type.
fn utmp_logins(utmp: &[u8]) -> u64 {
    utmp.chunks_exact(384).filter(|record| record[..2] == [7, 0]).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_capture, collect_files, format_part};
    use crate::{Capture, CollectorOptions};

    #[test]
    fn missing_files_are_optional() {
        let mut utmp = vec![0; 384 * 3 + 10];
        utmp[384] = 7;
        utmp[0] = 2;
        let mut capture = Capture::parse(
            b"=== /proc/uptime\n350735.47 234388.90\n=== /proc/sys/fs/file-nr\n1024 0 2048\n=== /run/systemd/timesync list\nsynchronized\n",
        )
        .unwrap();
        capture.insert("/run/utmp", &utmp);
        let part = collect_capture(&COLLECTOR, &capture, &CollectorOptions::default()).unwrap();
        assert_eq!(
            format_part(&part),
            "system.uptime 350735\nsystem.logged_in_users 1\nsystem.time_synced 1\nfile_descriptors.allocated 1024\nfile_descriptors.max 2048\nfile_descriptors.used_percent 50\n"
        );
    }

    #[test]
    fn missing_limit_and_utmp_are_optional() {
        let part = collect_files(
            &COLLECTOR,
            &[("/proc/uptime", "nan"), ("/proc/sys/fs/file-nr", "10 2 9223372036854775807\n")],
        )
        .unwrap();
        assert_eq!(format_part(&part), "file_descriptors.allocated 8\n");
        assert_eq!(part.errors.len(), 1);
        let sessions = Capture::parse(
            b"=== /proc/uptime\n1\n=== /run/systemd/sessions list\n1\n1.ref\n2\n=== /run/systemd/sessions/1\nCLASS=user\n=== /run/systemd/sessions/2\nCLASS=manager\n",
        )
        .unwrap();
        assert!(
            format_part(&collect_capture(&COLLECTOR, &sessions, &CollectorOptions::default()).unwrap())
                .contains("system.logged_in_users 1")
        );
    }
}

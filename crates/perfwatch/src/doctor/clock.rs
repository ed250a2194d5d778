//! Checks of the clock: its synchronization, and its difference from a hub.

use super::report::Report;
use perfwatch_model::HumanDuration;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const CHECK: &str = "clock";
/// State of systemd-timesyncd: the file `synchronized` appears with the first synchronization.
const TIMESYNC_DIRECTORY: &str = "/run/systemd/timesync";
/// Difference that needs attention, as in the built-in rule on clock skew. The header `Date` is exact to a second.
const MAX_DIFFERENCE_MS: i64 = 10_000;
/// Release of the first version: an earlier time is that of a machine without a clock.
const MIN_WALL_MS: i64 = 1_760_000_000_000;

/// Checks the time of this machine without another machine.
pub(super) fn check_clock(report: &mut Report, now_ms: i64) {
    check_synchronization(report, now_ms, Path::new(TIMESYNC_DIRECTORY));
}

fn check_synchronization(report: &mut Report, now_ms: i64, timesync: &Path) {
    if now_ms < MIN_WALL_MS {
        report.error(CHECK, "the clock is years behind", "set the time: timedatectl set-ntp true");
    } else if timesync.join("synchronized").exists() {
        report.ok(CHECK, "synchronized by systemd-timesyncd");
    } else if timesync.exists() {
        report.warning(
            CHECK,
            "systemd-timesyncd has not synchronized the clock yet",
            "check its servers: timedatectl timesync-status",
        );
    } else {
        report.ok(CHECK, "plausible; systemd-timesyncd is not used");
    }
}

/// Compares the time of this machine with that of a response of the hub.
pub(super) fn check_difference(report: &mut Report, now_ms: i64, hub_date: Option<SystemTime>) {
    let hub_ms = hub_date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
    let Some(hub_ms) = hub_ms.and_then(|since| i64::try_from(since.as_millis()).ok()) else { return };
    let difference = now_ms.saturating_sub(hub_ms);
    // The header is rounded down to a second.
    if (-MAX_DIFFERENCE_MS..=MAX_DIFFERENCE_MS + 1_000).contains(&difference) {
        report.ok(CHECK, "agrees with the hub");
        return;
    }
    let side = if difference < 0 { "behind" } else { "ahead of" };
    let length = HumanDuration::from_ms(difference.abs() / 1_000 * 1_000);
    report.warning(
        CHECK,
        format!("{length} {side} the hub; the hub corrects the times of snapshots"),
        "start a time service on both machines: timedatectl set-ntp true",
    );
}

#[cfg(test)]
mod tests {
    use super::super::report::CheckStatus::{Error, Ok, Warning};
    use super::*;
    use std::time::Duration;

    const NOW_MS: i64 = 1_800_000_000_500;

    #[test]
    fn unsynchronized_clocks_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let timesync = folder.path().join("timesync");
        let check = |now_ms| {
            let mut report = Report::default();
            check_synchronization(&mut report, now_ms, &timesync);
            report.result_of("clock").0
        };
        assert_eq!(check(NOW_MS), Ok);
        assert_eq!(check(0), Error, "without a clock");
        std::fs::create_dir(&timesync).unwrap();
        assert_eq!(check(NOW_MS), Warning);
        std::fs::write(timesync.join("synchronized"), "").unwrap();
        assert_eq!(check(NOW_MS), Ok);
    }

    #[test]
    fn clock_differences_are_found() {
        let check = |difference_s: u64, is_ahead: bool| {
            let hub = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            let shift = Duration::from_secs(difference_s);
            let mut report = Report::default();
            check_difference(&mut report, NOW_MS, Some(if is_ahead { hub - shift } else { hub + shift }));
            report.result_of("clock")
        };
        assert_eq!((check(0, true).0, check(10, true).0, check(10, false).0), (Ok, Ok, Ok));
        let (status, text) = check(3_600, true);
        assert!(status == Warning && text.starts_with("1h ahead of the hub"), "{text}");
        let (status, text) = check(90, false);
        assert!(status == Warning && text.starts_with("1m29s behind the hub"), "{text}");
        let mut report = Report::default();
        check_difference(&mut report, NOW_MS, None);
        assert_eq!(report.status(), Ok, "a proxy may remove the header");
    }
}

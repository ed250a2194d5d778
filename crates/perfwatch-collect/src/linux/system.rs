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
    // Distributions of before 2011 have no /run.
    let is_read = ["/run/utmp", "/var/run/utmp"].iter().any(|path| source.read(path, &mut utmp).is_ok());
    let logins = is_read.then(|| utmp_logins(&utmp)).flatten();
    // systemd creates an empty file on systems whose programs write no records.
    if logins.is_some() && !utmp.is_empty() {
        return logins;
    }
    let Ok(names) = source.list("/run/systemd/sessions") else { return logins };
    let is_login = |name: &&String| {
        let session = text(source, &format!("/run/systemd/sessions/{name}")).unwrap_or_default();
        let get = |key: &str| session.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        // `user`, and `user-early` and `user-light` of pam_systemd(8).
        !name.ends_with(".ref")
            && get("CLASS").is_some_and(|class| class.starts_with("user"))
            && get("STATE") != Some("closing")
    };
    Some(names.iter().filter(is_login).count() as u64)
}

/// Layout of the records of utmp(5), which depends on the architecture and C library.
#[derive(Debug, Clone, Copy)]
struct UtmpLayout {
    /// Size of a record in bytes.
    record: usize,
    is_big_endian: bool,
}

/// Known layouts. Records have 384 bytes where `ut_tv` has 32-bit fields (x86, s390, PowerPC), and 400
/// bytes otherwise (64-bit ARM, RISC-V, LoongArch).
const UTMP_LAYOUTS: [UtmpLayout; 4] = [
    UtmpLayout { record: 384, is_big_endian: false },
    UtmpLayout { record: 400, is_big_endian: false },
    UtmpLayout { record: 384, is_big_endian: true },
    UtmpLayout { record: 400, is_big_endian: true },
];

/// Largest value of `ut_type`, `ACCOUNTING`.
const MAX_UTMP_TYPE: u16 = 9;

impl UtmpLayout {
    /// Types of the complete records: their first two bytes.
    fn types(self, utmp: &[u8]) -> impl Iterator<Item = u16> {
        utmp.chunks_exact(self.record).map(move |record| match self.is_big_endian {
            true => u16::from_be_bytes([record[0], record[1]]),
            false => u16::from_le_bytes([record[0], record[1]]),
        })
    }
}

/// Counts the logins of a utmp(5) file. The host may have another architecture than this program, so the
/// layout is the one in which every record has a valid type. A file that has none is not a utmp file.
fn utmp_logins(utmp: &[u8]) -> Option<u64> {
    let is_valid = |layout: &UtmpLayout| layout.types(utmp).all(|record_type| record_type <= MAX_UTMP_TYPE);
    // Records of the wrong size mostly start in unused bytes, whose type 0 is valid too: the layout with
    // the most types counts, then that without a partial record, then the most frequent.
    let rank = |layout: &UtmpLayout| {
        let used = layout.types(utmp).filter(|&record_type| record_type != 0).count();
        (used, utmp.len().is_multiple_of(layout.record))
    };
    let layout = UTMP_LAYOUTS.into_iter().rev().filter(is_valid).max_by_key(rank)?;
    // `USER_PROCESS`, a login.
    Some(layout.types(utmp).filter(|&record_type| record_type == 7).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_capture, collect_files, format_part};
    use crate::{Capture, CollectorOptions};
    use proptest::prelude::*;

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

    /// Writes records of a layout with text in the fields that a login fills.
    fn utmp(layout: UtmpLayout, types: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &record_type in types {
            let mut record = vec![0; layout.record];
            let encode = if layout.is_big_endian { u16::to_be_bytes } else { u16::to_le_bytes };
            record[..2].copy_from_slice(&encode(record_type));
            if record_type != 0 {
                for (field, text) in [(8, "pts/0"), (40, "ts/0"), (44, "alice"), (76, "192.0.2.1")] {
                    record[field..field + text.len()].copy_from_slice(text.as_bytes());
                }
                // Seconds, microseconds and address are arbitrary bytes.
                record[layout.record - 48..layout.record - 36].fill(0xb5);
            }
            bytes.extend(record);
        }
        bytes
    }

    #[test]
    fn utmp_layouts_are_recognized() {
        for layout in UTMP_LAYOUTS {
            for (types, expected) in [
                (&[7][..], 1),
                (&[2, 7, 7], 2),
                (&[2, 1, 8, 6, 5, 0, 7], 1),
                (&[0, 0, 7, 0], 1),
                (&[2, 1, 8], 0),
                (&[7; 50], 50),
            ] {
                let mut bytes = utmp(layout, types);
                assert_eq!(utmp_logins(&bytes), Some(expected), "{layout:?} {types:?}");
                // A record that is being written is left out.
                bytes.extend([7; 100]);
                assert_eq!(utmp_logins(&bytes), Some(expected), "{layout:?} {types:?} partial");
            }
        }
    }

    #[test]
    fn utmp_without_records_has_no_logins() {
        assert_eq!(utmp_logins(b""), Some(0));
        assert_eq!(utmp_logins(&[7; 383]), Some(0));
        assert_eq!(utmp_logins(&[0xff; 5000]), None);
        assert_eq!(utmp_logins("text, not records\n".repeat(100).as_bytes()), None);
        let types_only: Vec<u8> = [2_u8, 7, 7]
            .iter()
            .flat_map(|&first| {
                let mut record = vec![0; 400];
                record[0] = first;
                record
            })
            .collect();
        assert_eq!(utmp_logins(&types_only), Some(2));
    }

    proptest! {
        #[test]
        fn utmp_logins_are_counted(layout in 0..4_usize, types in proptest::collection::vec(0..=9_u16, 1..40)) {
            let expected = types.iter().filter(|&&record_type| record_type == 7).count() as u64;
            prop_assert_eq!(utmp_logins(&utmp(UTMP_LAYOUTS[layout], &types)), Some(expected));
        }

        #[test]
        fn any_utmp_is_counted_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            utmp_logins(&bytes);
        }
    }
}

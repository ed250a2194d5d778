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

/// Name of the distribution by os-release(5): `PRETTY_NAME`, or else `NAME` and `VERSION`. The last
/// assignment of a variable counts, as in a shell.
fn os_name(os_release: &str) -> String {
    let get = |key: &str| {
        let mut values = os_release
            .trim_start_matches('\u{feff}')
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix('=').map(unquote_shell));
        values.next_back().filter(|value| !value.is_empty())
    };
    let name_and_version = || {
        let name = get("NAME")?;
        let version = get("VERSION").or_else(|| get("VERSION_ID"));
        Some(version.map_or_else(|| name.clone(), |version| format!("{name} {version}")))
    };
    get("PRETTY_NAME").or_else(name_and_version).unwrap_or_else(|| "Linux".to_owned())
}

/// Value of a shell assignment: single quotes are literal, a backslash in double quotes escapes `"`, `$`,
/// a backslash and a grave accent, and elsewhere any character. Spaces outside of quotes, which a shell does
/// not accept, are kept. A comment ends the value.
fn unquote_shell(text: &str) -> String {
    let mut value = String::new();
    // Length without trailing spaces that are outside of quotes.
    let mut length = 0;
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (None, '#') if value.ends_with([' ', '\t']) && length < value.len() => break,
            (None, space) if space.is_whitespace() => {
                value.push(space);
                continue;
            }
            (None, '\\') => value.extend(characters.next()),
            (Some('"'), '\\') => match characters.next_if(|next| "\"$\\`".contains(*next)) {
                Some(escaped) => value.push(escaped),
                None => value.push('\\'),
            },
            _ => value.push(character),
        }
        length = value.len();
    }
    value.truncate(length);
    value.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::collect_files;
    use proptest::prelude::*;

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

    #[test]
    fn os_name_follows_shell_quoting() {
        for (text, expected) in [
            ("# c\nNAME='Some OS'\nPRETTY_NAME=\"Some \\\"OS\\\" 1.2\"\r\n", "Some \"OS\" 1.2"),
            ("PRETTY_NAME='a \\\"b\\\" $c'\n", "a \\\"b\\\" $c"),
            ("PRETTY_NAME=\"\\$a \\`b\\` \\\\ \\n\"", "$a `b` \\ \\n"),
            ("PRETTY_NAME=a\\ b", "a b"),
            ("PRETTY_NAME=\"a\"' b'c # comment", "a bc"),
            ("PRETTY_NAME=Alpine#1  \r\n", "Alpine#1"),
            ("  PRETTY_NAME=\"a # b\" # comment\n", "a # b"),
            ("PRETTY_NAME=My Linux\n", "My Linux"),
            ("PRETTY_NAME=old\n#PRETTY_NAME=no\nPRETTY_NAME=\"new\"\n", "new"),
            ("PRETTY_NAME=old\nPRETTY_NAME=\"\"\nNAME=Void\n", "Void"),
            (
                "NAME=\"Debian GNU/Linux\"\nVERSION=\"12 (bookworm)\"\nPRETTY_NAME=''\n",
                "Debian GNU/Linux 12 (bookworm)",
            ),
            ("NAME=Alpine\nVERSION_ID=3.20\n", "Alpine 3.20"),
            ("PRETTY_NAME=\"unterminated", "unterminated"),
            ("\u{feff}PRETTY_NAME=x\\", "x"),
            ("XPRETTY_NAME=a\nPRETTY_NAME2=b\n", "Linux"),
        ] {
            assert_eq!(os_name(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn os_name_inverts_double_quotes(name in "[ -~]{1,30}") {
            let name = format!("x{}", name.trim());
            let quoted: String =
                name.chars().flat_map(|c| "\"$\\`".contains(c).then_some('\\').into_iter().chain([c])).collect();
            prop_assert_eq!(os_name(&format!("PRETTY_NAME=\"{quoted}\"\r\n")), name);
        }

        #[test]
        fn any_os_release_has_a_name(text in "(PRETTY_NAME=|NAME=)?[ -~\\n]{0,40}") {
            prop_assert!(!os_name(&text).is_empty());
        }
    }
}

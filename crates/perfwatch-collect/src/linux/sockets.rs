//! Sockets and TCP errors from `/proc/net/{sockstat,sockstat6,snmp,snmp6,netstat}` (proc_net(5); RFC
//! 4022 and RFC 4113 define the SNMP names). TCP counters include both IP versions, those of UDP are
//! separate.

use crate::collector::to_f64;
use crate::parse::{first_word, text};
use crate::reading::Raw;
use crate::{Cadence, CollectContext, CollectError, Collector, Source};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("sockets.used", Count, 0, "Sockets in use."),
    MetricDef::gauge("tcp.sockets", Count, 0, "TCP sockets in use (IPv4 and IPv6), TIME_WAIT excluded."),
    MetricDef::gauge("tcp.established", Count, 0, "Connections in ESTABLISHED or CLOSE_WAIT."),
    MetricDef::gauge("tcp.time_wait", Count, 0, "Connections in TIME_WAIT."),
    MetricDef::gauge("tcp.orphans", Count, 0, "Orphaned connections."),
    MetricDef::gauge("udp.sockets", Count, 0, "UDP sockets in use (IPv4 and IPv6)."),
    MetricDef::rate("tcp.retransmits", PerSecond, 1, "Retransmitted segments."),
    MetricDef::rate("tcp.opened", PerSecond, 1, "Connections opened."),
    MetricDef::rate("tcp.resets", PerSecond, 1, "Established connections that were reset."),
    MetricDef::rate(
        "tcp.listen_drops",
        PerSecond,
        1,
        "Connections dropped because the accept queue was full.",
    ),
    MetricDef::rate("udp.errors", PerSecond, 1, "Datagrams lost to buffer overflow or bad checksums.")
        .summed(),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "sockets", metrics: METRICS, cadence: Cadence::EveryTick, read };

/// Number of connections above which the kernel's 32-bit gauge went below zero.
const MAX_CONNECTIONS: u64 = 1 << 31;

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    let sockets = text(cx.source, "/proc/net/sockstat")?;
    let sockets6 = read_optional(cx.source, "/proc/net/sockstat6");
    let in_use = |v4: &str, v6: &str| {
        let v6_sockets = sockstat_value(&sockets6, v6, "inuse").unwrap_or(0);
        Some(sockstat_value(&sockets, v4, "inuse")?.saturating_add(v6_sockets))
    };
    for (metric, value) in [
        ("sockets.used", sockstat_value(&sockets, "sockets", "used")),
        ("tcp.sockets", in_use("TCP", "TCP6")),
        ("tcp.time_wait", sockstat_value(&sockets, "TCP", "tw")),
        ("tcp.orphans", sockstat_value(&sockets, "TCP", "orphan")),
        ("udp.sockets", in_use("UDP", "UDP6")),
    ] {
        if let Some(value) = value {
            cx.out.gauge(metric, to_f64(value));
        }
    }
    let snmp = read_optional(cx.source, "/proc/net/snmp");
    let snmp6 = read_optional(cx.source, "/proc/net/snmp6");
    let netstat = read_optional(cx.source, "/proc/net/netstat");
    if let Some(established) = snmp_value(&snmp, "Tcp", "CurrEstab").filter(|&count| count <= MAX_CONNECTIONS)
    {
        cx.out.gauge("tcp.established", to_f64(established));
    }
    let sum = |columns: &[Option<u64>]| {
        columns.iter().copied().try_fold(0_u64, |sum, column| Some(sum.saturating_add(column?)))
    };
    for (metric, value) in [
        ("tcp.retransmits", snmp_value(&snmp, "Tcp", "RetransSegs")),
        (
            "tcp.opened",
            sum(&[snmp_value(&snmp, "Tcp", "ActiveOpens"), snmp_value(&snmp, "Tcp", "PassiveOpens")]),
        ),
        ("tcp.resets", snmp_value(&snmp, "Tcp", "EstabResets")),
        ("tcp.listen_drops", snmp_value(&netstat, "TcpExt", "ListenDrops")),
    ] {
        if let Some(value) = value {
            cx.out.counter(metric, value);
        }
    }
    // Summed by instance: an IP version that becomes readable later adds nothing at first.
    for (version, errors) in
        [("4", snmp_value(&snmp, "Udp", "InErrors")), ("6", snmp6_value(&snmp6, "Udp6InErrors"))]
    {
        if let Some(errors) = errors {
            cx.out.push_instance("udp.errors", &version.into(), Raw::Counter(errors));
        }
    }
    if cx.out.part.samples.is_empty() {
        Err(crate::parse::parse_error("/proc/net/sockstat", &sockets))
    } else {
        Ok(())
    }
}

/// Reads a file that kernels without IPv6 or SNMP counters do not have.
fn read_optional(source: &dyn Source, path: &str) -> String {
    text(source, path).unwrap_or_default()
}

/// Reads the number after `key` in a line such as `TCP: inuse 5 orphan 0`.
fn sockstat_value(text: &str, line: &str, key: &str) -> Option<u64> {
    let remaining = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'))?;
    let mut words = remaining.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let value = words.next()?;
        if word == key {
            return value.parse().ok();
        }
    }
    None
}

/// Reads a value from two lines with equal prefix, the first with column names, the second with
/// numbers.
fn snmp_value(text: &str, line: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
    let column = lines.next()?.split_ascii_whitespace().position(|name| name == key)?;
    lines.next()?.split_ascii_whitespace().nth(column)?.parse().ok()
}

/// Reads a value of `/proc/net/snmp6`: a line per value.
fn snmp6_value(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| first_word(line).0 == key)?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_files, format_part};

    #[test]
    fn joins_both_ip_versions() {
        let part = collect_files(&COLLECTOR, &[
            ("/proc/net/sockstat", "sockets: used 40\nTCP: inuse 5 orphan 1 tw 2 alloc 6 mem 3\nUDP: inuse 3 mem 2\n"),
            ("/proc/net/sockstat6", "TCP6: inuse 7\nUDP6: inuse 1\n"),
            ("/proc/net/snmp", "Tcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens EstabResets CurrEstab RetransSegs\nTcp: 1 -1 10 20 3 4 5\nUdp: InDatagrams InErrors\nUdp: 9 8\n"),
            ("/proc/net/snmp6", "Udp6InErrors                    \t90\nUdp6InErrorsOfNothing 7\n"),
            ("/proc/net/netstat", "TcpExt: SyncookiesSent ListenDrops\nTcpExt: 0 6\nIpExt: A\nIpExt: 1\n"),
        ])
        .unwrap();
        assert_eq!(
            format_part(&part),
            "sockets.used 40\ntcp.sockets 12\ntcp.time_wait 2\ntcp.orphans 1\nudp.sockets 4\ntcp.established 4\n\
             tcp.retransmits +5\ntcp.opened +30\ntcp.resets +3\ntcp.listen_drops +6\nudp.errors{4} +8\nudp.errors{6} +90\n"
        );
    }

    #[test]
    fn partial_tables_yield_partial_metrics() {
        let part = collect_files(
            &COLLECTOR,
            &[("/proc/net/sockstat", "TCP: inuse 5 orphan\n"), ("/proc/net/snmp", "Tcp: CurrEstab\n")],
        )
        .unwrap();
        assert_eq!(format_part(&part), "tcp.sockets 5\n");
        assert!(collect_files(&COLLECTOR, &[("/proc/net/sockstat", "?")]).is_err());
    }
}

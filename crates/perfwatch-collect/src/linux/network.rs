//! Network interfaces from `/proc/net/dev` (proc_net(5)) and `/sys/class/net` (kernel
//! document ABI/testing/sysfs-class-net).

use crate::collector::{is_excluded, to_f64, truncate_instance};
use crate::parse::{number, numbers, parse_error, text};
use crate::reading::Raw;
use crate::{Cadence, CollectContext, CollectError, Collector, Source};
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::rate("network.total.rx_bytes", BytesPerSecond, 0, "Bytes received, all physical interfaces.")
        .summed(),
    MetricDef::rate("network.total.tx_bytes", BytesPerSecond, 0, "Bytes sent, all physical interfaces.")
        .summed(),
    MetricDef::rate("network.rx_bytes", BytesPerSecond, 0, "Bytes received.").with_dimension("interface"),
    MetricDef::rate("network.tx_bytes", BytesPerSecond, 0, "Bytes sent.").with_dimension("interface"),
    MetricDef::rate("network.rx_packets", PerSecond, 0, "Packets received.").with_dimension("interface"),
    MetricDef::rate("network.tx_packets", PerSecond, 0, "Packets sent.").with_dimension("interface"),
    MetricDef::rate("network.rx_errors", PerSecond, 1, "Receive errors.").with_dimension("interface"),
    MetricDef::rate("network.tx_errors", PerSecond, 1, "Transmit errors.").with_dimension("interface"),
    MetricDef::rate("network.rx_drops", PerSecond, 1, "Received packets dropped.")
        .with_dimension("interface"),
    MetricDef::rate("network.tx_drops", PerSecond, 1, "Transmit packets dropped.")
        .with_dimension("interface"),
    MetricDef::gauge("network.up", Flag, 0, "1 if the link is up.").with_dimension("interface").rollup_last(),
    MetricDef::gauge("network.speed", BitsPerSecond, 0, "Link speed; absent if unknown.")
        .with_dimension("interface")
        .rollup_last(),
];

pub(crate) const COLLECTOR: Collector =
    Collector { name: "network", metrics: METRICS, cadence: Cadence::EveryTick, read };

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    const PATH: &str = "/proc/net/dev";
    let text = text(cx.source, PATH)?;
    let (mut not_virtual, mut physical) = (Vec::new(), Vec::new());
    let mut has_interface = false;
    // Two header lines follow; there may be no space after the name: "eth0:123".
    for line in text.lines().skip(2).filter(|line| !line.trim().is_empty()) {
        let Some((name, remaining)) = line.rsplit_once(':').map(|(name, remaining)| (name.trim(), remaining))
        else {
            cx.out.record_error(parse_error(PATH, line).to_string());
            continue;
        };
        let counters = numbers(remaining);
        if counters.len() < 12 {
            cx.out.record_error(parse_error(PATH, line).to_string());
            continue;
        }
        has_interface = true;
        if is_excluded(&cx.options.exclude_interfaces, name) {
            continue;
        }
        let bytes = (truncate_instance(name), counters[0], counters[8]);
        if is_physical(cx.source, name) {
            physical.push(bytes);
        } else if !is_virtual(name) {
            not_virtual.push(bytes);
        }
        push_samples(cx, name, &counters);
    }
    if !has_interface && cx.out.part.errors.is_empty() {
        return Err(CollectError::NotAvailable);
    }
    // In guests and containers, interfaces have no device.
    for (interface, received, sent) in if physical.is_empty() { not_virtual } else { physical } {
        cx.out.push_instance("network.total.rx_bytes", &interface, Raw::Counter(received));
        cx.out.push_instance("network.total.tx_bytes", &interface, Raw::Counter(sent));
    }
    Ok(())
}

fn push_samples(cx: &mut CollectContext<'_>, name: &str, counters: &[u64]) {
    let interface = truncate_instance(name);
    for (metric, column) in [
        ("network.rx_bytes", 0),
        ("network.tx_bytes", 8),
        ("network.rx_packets", 1),
        ("network.tx_packets", 9),
        ("network.rx_errors", 2),
        ("network.tx_errors", 10),
        ("network.rx_drops", 3),
        ("network.tx_drops", 11),
    ] {
        cx.out.push_instance(metric, &interface, Raw::Counter(counters[column]));
    }
    // Links without a carrier state (tun, loopback) report "unknown" while they work.
    if let Ok(state) = text(cx.source, &format!("/sys/class/net/{name}/operstate")) {
        let up = matches!(state.trim(), "up" | "unknown");
        cx.out.push_instance("network.up", &interface, Raw::Gauge(f64::from(u8::from(up))));
    }
    // -1 or an error if the link is down or has no speed.
    if let Ok(megabits) = number::<i64>(cx.source, &format!("/sys/class/net/{name}/speed"))
        && let Ok(megabits @ 1..) = u64::try_from(megabits)
    {
        cx.out.push_instance("network.speed", &interface, Raw::Gauge(to_f64(megabits) * 1e6));
    }
}

fn is_physical(source: &dyn Source, name: &str) -> bool {
    source.list(&format!("/sys/class/net/{name}/device")).is_ok()
}

/// Returns whether the traffic of an interface is counted by another interface too, or never
/// leaves the host.
fn is_virtual(name: &str) -> bool {
    [
        "lo", "docker", "br-", "virbr", "veth", "cni", "flannel", "cali", "tun", "tap", "wg", "dummy", "ifb",
        "bond", "vlan",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
        || name.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_capture, collect_files, format_part};
    use crate::{Capture, CollectorOptions};

    const HEADER: &str =
        "Inter-| Receive | Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n";

    #[test]
    fn total_counts_physical_interfaces() {
        let input = format!(
            "=== /proc/net/dev\n{HEADER}    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  eth0:100 2 3 4 0 0 0 0 200 5 6 7 0 0 0 0\n\
             docker0: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\nveth1: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\nbad line\n\
             === /sys/class/net/eth0/device list\ndriver\n=== /sys/class/net/eth0/operstate\nup\n=== /sys/class/net/eth0/speed\n1000\n\
             === /sys/class/net/lo/operstate\nunknown\n=== /sys/class/net/docker0/operstate\ndown\n=== /sys/class/net/docker0/speed\n-1\n"
        );
        let part = collect_capture(
            &COLLECTOR,
            &Capture::parse(input.as_bytes()).unwrap(),
            &CollectorOptions::default(),
        )
        .unwrap();
        let text = format_part(&part);
        assert!(text.contains(
            "network.rx_bytes{eth0} +100\nnetwork.tx_bytes{eth0} +200\nnetwork.rx_packets{eth0} +2\nnetwork.tx_packets{eth0} +5\n\
             network.rx_errors{eth0} +3\nnetwork.tx_errors{eth0} +6\nnetwork.rx_drops{eth0} +4\nnetwork.tx_drops{eth0} +7\n\
             network.up{eth0} 1\nnetwork.speed{eth0} 1000000000\n"
        ), "{text}");
        assert!(
            text.contains("network.up{docker0} 0\n")
                && !text.contains("speed{docker0}")
                && !text.contains("veth1")
        );
        assert!(text.ends_with("network.total.rx_bytes{eth0} +100\nnetwork.total.tx_bytes{eth0} +200\n"));
        assert_eq!(part.errors.len(), 1);
    }

    #[test]
    fn total_falls_back_to_non_virtual_interfaces() {
        let input = format!(
            "{HEADER}lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\nens3: 7 2 3 4 0 0 0 0 8 5 6 7 0 0 0 0\nens3.7: 7 2 3 4 0 0 0 0 8 5 6 7 0 0 0 0\n"
        );
        let text = format_part(&collect_files(&COLLECTOR, &[("/proc/net/dev", &input)]).unwrap());
        assert!(
            text.ends_with("network.total.rx_bytes{ens3} +7\nnetwork.total.tx_bytes{ens3} +8\n"),
            "{text}"
        );
        assert_eq!(collect_files(&COLLECTOR, &[("/proc/net/dev", HEADER)]), Err(CollectError::NotAvailable));
    }
}

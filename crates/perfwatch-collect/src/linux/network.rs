//! Network interfaces from `/proc/net/dev` (proc_net(5)) and `/sys/class/net` (kernel
//! document ABI/testing/sysfs-class-net).

use crate::collector::{is_excluded, to_f64};
use crate::linux::interface_topology::counted_interfaces;
use crate::parse::{number, numbers, parse_error, text};
use crate::reading::Raw;
use crate::{Cadence, CollectContext, CollectError, Collector};
use perfwatch_model::{MetricDef, Unit::*};
use std::sync::Arc;

const METRICS: &[MetricDef] = &[
    MetricDef::rate("network.total.rx_bytes", BytesPerSecond, 0, "Bytes received, each counted once.")
        .summed(),
    MetricDef::rate("network.total.tx_bytes", BytesPerSecond, 0, "Bytes sent, each counted once.").summed(),
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

/// Prefixes of interfaces of dial-in clients. A server has one per client.
const DIAL_IN_PREFIXES: [&str; 3] = ["ppp", "l2tp", "ipoe"];
/// Number of dial-in interfaces up to which each has its own series. A host with more is an access server,
/// whose clients come and go.
const MAX_DIAL_IN_INTERFACES: usize = 16;

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    const PATH: &str = "/proc/net/dev";
    let text = text(cx.source, PATH)?;
    let mut interfaces: Vec<(&str, Vec<u64>)> = Vec::new();
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
        if !is_excluded(&cx.options.exclude_interfaces, name) {
            interfaces.push((name, counters));
        }
    }
    if !has_interface && cx.out.part.errors.is_empty() {
        return Err(CollectError::NotAvailable);
    }
    let names: Vec<&str> = interfaces.iter().map(|(name, _)| *name).collect();
    let counted = cx.cache.interfaces.get(&names, || counted_interfaces(cx.source, &names)).clone();
    let is_dial_in = |name: &str| {
        let number = DIAL_IN_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
        number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
    };
    let is_access_server = names.iter().filter(|name| is_dial_in(name)).count() > MAX_DIAL_IN_INTERFACES;
    for ((name, counters), counted) in interfaces.iter().zip(counted) {
        let interface = Arc::from(*name);
        if counted {
            cx.out.push_instance("network.total.rx_bytes", &interface, Raw::Counter(counters[0]));
            cx.out.push_instance("network.total.tx_bytes", &interface, Raw::Counter(counters[8]));
        }
        if !is_access_server || !is_dial_in(name) {
            push_samples(cx, &interface, counters);
        }
    }
    Ok(())
}

fn push_samples(cx: &mut CollectContext<'_>, interface: &Arc<str>, counters: &[u64]) {
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
        cx.out.push_instance(metric, interface, Raw::Counter(counters[column]));
    }
    // Links without a carrier state (tun, loopback) report "unknown" while they work.
    if let Ok(state) = text(cx.source, &format!("/sys/class/net/{interface}/operstate")) {
        let up = matches!(state.trim(), "up" | "unknown");
        cx.out.push_instance("network.up", interface, Raw::Gauge(f64::from(u8::from(up))));
    }
    // An error if the link is down or has no speed.
    if let Ok(speed) = number::<i64>(cx.source, &format!("/sys/class/net/{interface}/speed"))
        && let Some(megabits) = known_speed(speed)
    {
        cx.out.push_instance("network.speed", interface, Raw::Gauge(to_f64(megabits) * 1e6));
    }
}

/// Returns the speed in megabits per second if the driver knows it. An unknown speed is -1, which drivers
/// also print as an unsigned number of 16 or 32 bits.
fn known_speed(megabits: i64) -> Option<u64> {
    const UNKNOWN: [i64; 3] = [u16::MAX as i64, i32::MAX as i64, u32::MAX as i64];
    u64::try_from(megabits).ok().filter(|&speed| speed > 0 && !UNKNOWN.contains(&megabits))
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
        assert!(text.contains("network.total.rx_bytes{eth0} +100\nnetwork.total.tx_bytes{eth0} +200\n"));
        assert_eq!(text.matches("network.total.rx_bytes").count(), 1);
        assert_eq!(part.errors.len(), 1);
    }

    #[test]
    fn total_falls_back_to_non_virtual_interfaces() {
        let input = format!(
            "{HEADER}lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\nens3: 7 2 3 4 0 0 0 0 8 5 6 7 0 0 0 0\nens3.7: 7 2 3 4 0 0 0 0 8 5 6 7 0 0 0 0\n"
        );
        let text = format_part(&collect_files(&COLLECTOR, &[("/proc/net/dev", &input)]).unwrap());
        assert!(
            text.contains("network.total.rx_bytes{ens3} +7\nnetwork.total.tx_bytes{ens3} +8\n"),
            "{text}"
        );
        assert_eq!(text.matches("network.total.rx_bytes").count(), 1);
        assert_eq!(collect_files(&COLLECTOR, &[("/proc/net/dev", HEADER)]), Err(CollectError::NotAvailable));
    }

    #[test]
    fn unknown_speeds_are_absent() {
        for (speed, expected) in [
            (-1, None),
            (0, None),
            (65_535, None),
            (2_147_483_647, None),
            (4_294_967_295, None),
            (10, Some(10)),
            (400_000, Some(400_000)),
        ] {
            assert_eq!(known_speed(speed), expected, "{speed}");
        }
    }

    #[test]
    fn clients_of_an_access_server_have_no_series() {
        use std::fmt::Write as _;
        let counters = "7 2 3 4 0 0 0 0 8 5 6 7 0 0 0 0";
        for (clients, expected) in [(2, 3), (17, 1)] {
            let mut input = format!("{HEADER}eth0: {counters}\n");
            for client in 0..clients {
                let _ = writeln!(input, "ppp{client}: {counters}");
            }
            let text = format_part(&collect_files(&COLLECTOR, &[("/proc/net/dev", &input)]).unwrap());
            assert_eq!(text.matches("network.rx_bytes").count(), expected, "{text}");
        }
    }
}

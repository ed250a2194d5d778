//! TCP connections by state from `/proc/net/{tcp,tcp6}` (proc_net(5)). The kernel formats a line
//! per connection, so connections are counted rarely, and above a limit not at all. The `sockets`
//! collector always provides established and TIME_WAIT connections.

use crate::parse::text;
use crate::{Cadence, CollectContext, CollectError, Collector, Source};
use perfwatch_model::limits::MAX_COUNTED_SOCKETS;
use perfwatch_model::{MetricDef, Unit::*};

const METRICS: &[MetricDef] = &[
    MetricDef::gauge("tcp.listen", Count, 0, "Listening sockets."),
    MetricDef::gauge("tcp.syn_sent", Count, 0, "Connections in SYN_SENT."),
    MetricDef::gauge("tcp.syn_received", Count, 0, "Connections in SYN_RECEIVED."),
    MetricDef::gauge("tcp.fin_wait", Count, 0, "Connections in FIN_WAIT."),
    MetricDef::gauge("tcp.close_wait", Count, 0, "Connections in CLOSE_WAIT."),
    MetricDef::gauge("tcp.closing", Count, 0, "Connections in CLOSING or LAST_ACK."),
];

/// Runs at most every 60 s: the kernel walks its whole hash table twice, which takes 8 ms with 24 GB of
/// memory even without connections, several times as long as all other collectors of a tick.
pub(crate) const COLLECTOR: Collector =
    Collector { name: "tcp_states", metrics: METRICS, cadence: Cadence::AtMostEvery(60), read };

fn read(cx: &mut CollectContext<'_>) -> Result<(), CollectError> {
    if open_sockets(cx.source) > MAX_COUNTED_SOCKETS {
        return Err(CollectError::NotAvailable);
    }
    let mut states = [0_u32; 16];
    let mut tables_read = 0;
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = match text(cx.source, path) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(CollectError::NotAvailable) => continue,
            // Without one table, the numbers would be too small.
            Err(error) => return Err(error),
        };
        tables_read += 1;
        for line in text.lines().skip(1) {
            // sl local_address rem_address st …
            let state =
                line.split_ascii_whitespace().nth(3).and_then(|st| usize::from_str_radix(st, 16).ok());
            if let Some(count) = state.and_then(|state| states.get_mut(state)) {
                *count += 1;
            }
        }
    }
    if tables_read == 0 {
        return Err(CollectError::NotAvailable);
    }
    // include/net/tcp_states.h
    for (metric, codes) in [
        ("tcp.listen", &[10][..]),
        ("tcp.syn_sent", &[2]),
        ("tcp.syn_received", &[3, 12]),
        ("tcp.fin_wait", &[4, 5]),
        ("tcp.close_wait", &[8]),
        ("tcp.closing", &[9, 11]),
    ] {
        cx.out.gauge(metric, f64::from(codes.iter().map(|&state| states[state]).sum::<u32>()));
    }
    Ok(())
}

/// Number of lines of both tables: sockets in use and in TIME_WAIT, IPv4 and IPv6.
fn open_sockets(source: &dyn Source) -> u64 {
    let value = |path: &str, prefix: &str, key: &str| {
        let text = text(source, path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(prefix))?;
        line.split_ascii_whitespace().skip_while(|word| *word != key).nth(1)?.parse::<u64>().ok()
    };
    [
        value("/proc/net/sockstat", "TCP:", "inuse"),
        value("/proc/net/sockstat", "TCP:", "tw"),
        value("/proc/net/sockstat6", "TCP6:", "inuse"),
    ]
    .into_iter()
    .flatten()
    .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::test_util::{collect_capture, collect_files, format_part};
    use crate::{Capture, CollectorOptions};

    #[test]
    fn counts_by_state() {
        let table = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:1F90 00000000:0000 0A 0\n   1: a b 08\n   2: a b 04\n   3: a b ZZ\n   4:\n";
        let part = collect_files(
            &COLLECTOR,
            &[("/proc/net/tcp", table), ("/proc/net/tcp6", "head\n 0: a b 05\n 1: a b FF\n")],
        )
        .unwrap();
        assert_eq!(
            format_part(&part),
            "tcp.listen 1\ntcp.syn_sent 0\ntcp.syn_received 0\ntcp.fin_wait 2\ntcp.close_wait 1\ntcp.closing 0\n"
        );
    }

    #[test]
    fn skipped_above_the_socket_limit() {
        let files =
            [("/proc/net/sockstat", "TCP: inuse 9000 orphan 0 tw 2000 alloc 1\n"), ("/proc/net/tcp", "h\n")];
        assert_eq!(collect_files(&COLLECTOR, &files), Err(CollectError::NotAvailable));
        let files = [
            ("/proc/net/sockstat", "TCP: inuse 5 orphan 0 tw 20 alloc 1\n"),
            ("/proc/net/sockstat6", "TCP6: inuse 120000\n"),
            ("/proc/net/tcp", "h\n"),
        ];
        assert_eq!(collect_files(&COLLECTOR, &files), Err(CollectError::NotAvailable));
    }

    #[test]
    fn unreadable_table_is_an_error() {
        let capture =
            b"=== /proc/net/tcp\nh\n 0: a b 0A\n=== /proc/net/tcp6 error\nlarger than 16 MiB\n".as_slice();
        let result =
            collect_capture(&COLLECTOR, &Capture::parse(capture).unwrap(), &CollectorOptions::default());
        assert_eq!(result, Err(CollectError::Failed("/proc/net/tcp6: larger than 16 MiB".into())));
    }
}

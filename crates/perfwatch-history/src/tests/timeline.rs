//! Timeline of a host: reasons of gaps, reboots and changed facts, over blocks and unsealed rows.

use super::*;
use crate::timeline::Reboot;
use perfwatch_model::HostFacts;
use perfwatch_tsdb::query::GapKind;

pub(super) async fn timeline_has_gaps_reboots_and_changed_facts(backend: TestBackend) {
    let mut site = TestHistory::new(backend, HistoryConfig::default()).await;
    let second = |seconds: i64| T0 + seconds * 1_000;
    let with_facts = |row: Arc<Snapshot>, kernel: &str| {
        let facts = HostFacts { kernel: kernel.to_owned(), ..HostFacts::default() };
        Arc::new(Snapshot { facts: Some(Arc::new(facts)), ..(*row).clone() })
    };
    let mut rows = vec![with_facts(site.row(1, 0, T0), "6.1")];
    rows.extend((1..10).map(|seq| site.row(1, seq, second(10 * i64::try_from(seq).unwrap()))));
    // The agent stops for five minutes, and the host is booted with another kernel after a day.
    rows.push(site.row(1, 10, second(390)));
    rows.push(with_facts(site.row(1, 11, second(400)), "6.1"));
    site.advance_to(second(400));
    site.send(rows).await;
    site.history.seal(true).await.unwrap();
    let boot_ms = second(0) + DAY + HOUR;
    site.advance_to(boot_ms);
    site.send(vec![with_facts(site.row(2, 0, boot_ms), "6.2"), site.row(2, 1, boot_ms + 10_000)]).await;

    let range = (T0 - HOUR, boot_ms + HOUR);
    let timeline = site.history.timeline(site.host, range, 10_000, None).await.unwrap();
    let gaps: Vec<_> = timeline.gaps.iter().map(|gap| (gap.from_ms, gap.to_ms, gap.kind)).collect();
    let restart = (second(400), boot_ms, GapKind::HostRestarted);
    assert_eq!(gaps, [(second(90), second(390), GapKind::AgentStopped), restart]);
    assert_eq!(timeline.reboots, [Reboot { from_ms: second(400), to_ms: boot_ms }]);
    let kernels: Vec<_> = timeline.facts.iter().map(|change| (change.at_ms, &*change.after.kernel)).collect();
    assert_eq!(kernels, [(boot_ms, "6.2")]);
    let part = (second(100), second(380));
    let empty = site.history.timeline(site.host, part, 10_000, None).await.unwrap();
    assert_eq!((empty.gaps.len(), empty.reboots.len()), (0, 0));
}

//! What a back-test says is what the live engine did on the same data.

use super::*;

const DAYS: i64 = 7;
const EVERY_MS: i64 = 20_000;

/// Seven days of a host, seen live, kept in history.
async fn random_walk(site: &mut TestInstall, shape: &Arc<Shape>) {
    // A walk that wanders up and down, the same each time; now and then nothing for a while.
    let (mut cpu, mut memory, mut noise) = (300_i64, 400_i64, 7_u64);
    let mut rows = Vec::new();
    for step in 0..DAYS * 86_400_000 / EVERY_MS {
        site.clock.advance(Duration::from_millis(EVERY_MS.unsigned_abs()));
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wander = |shift: u32| i64::try_from((noise >> shift) % 121).unwrap() - 60;
        cpu = (cpu + wander(33)).clamp(0, 1_000);
        memory = (memory + wander(45) / 3).clamp(100, 900);
        if step % 5_000 > 4_900 {
            continue;
        }
        site.seq += 1;
        let snapshot = Arc::new(Snapshot {
            boot: BootId::from_bytes(&[1; 16]).unwrap(),
            seq: site.seq,
            at_ms: site.clock.wall_ms(),
            interval_ms: 20_000,
            shape: shape.clone(),
            values: vec![cpu, memory],
            processes: vec![],
            facts: None,
            errors: vec![],
        });
        site.alerting.observe(host(1), &snapshot, Some(0));
        rows.push(snapshot);
        if rows.len() == 1_000 {
            let _turn = site.history.append(host(1), std::mem::take(&mut rows)).await.unwrap();
        }
    }
    let _turn = site.history.append(host(1), rows).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backtest_matches_live_alerts() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) =
        (Arc::new(ManualClock::starting_at(T0)), Arc::new(RecordingNotifier::default()), shape());
    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    site.start();
    let rules = vec![
        rule(1, json!({"kind": "value", "metric": "cpu.usage", "threshold": 90, "clear": 80}), 60),
        rule(
            2,
            json!({"kind": "value", "metric": "memory.used_percent", "aggregate": "mean", "window": "10m", "threshold": 70, "clear": 60}),
            0,
        ),
        rule(
            3,
            json!({"kind": "change", "metric": "memory.used_percent", "window": "10m", "before": "2h", "threshold": 60}),
            0,
        ),
        rule(
            4,
            json!({"kind": "value", "metric": "cpu.usage", "aggregate": "p95", "window": "30m", "compare": "below", "threshold": 20, "clear": 30}),
            300,
        ),
    ];
    site.set_definitions(rules.clone(), vec![], vec![]).await;
    site.send(host(1), &shape, [100, 500], 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    random_walk(&mut site, &shape).await;
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    let now_ms = clock.wall_ms();
    let of = perfwatch_store::incidents::AlertFilter::Host(host(1).0, 0, i64::MAX);
    let all = perfwatch_store::incidents::AlertRow::list(site.alerting.store(), of).await.unwrap();
    assert!(all.len() < 500, "the list is whole: {}", all.len());
    for rule in rules {
        let live = all.iter().filter(|row| row.rule == rule.id).filter_map(Alert::from_row);
        let mut live: Vec<_> =
            live.map(|alert| (alert.body.pending_since_ms, alert.fired_ms, alert.resolved_ms)).collect();
        live.sort_unstable();
        let result = site.alerting.backtest(rule.clone(), vec![host(1)], (T0, now_ms + 1)).await.unwrap();
        assert!(!result.hosts[0].downsampled && result.skipped_hosts == 0);
        let mut tested: Vec<_> = result.hosts[0]
            .firing_intervals
            .iter()
            .map(|fire| (fire.pending_since_ms, fire.fired_ms, fire.resolved_ms))
            .collect();
        tested.sort_unstable();
        assert!(live.len() >= 3, "{} fired {} times only", rule.name, live.len());
        assert_eq!(tested, live, "{}", rule.name);
    }
    site.crash().await;
}

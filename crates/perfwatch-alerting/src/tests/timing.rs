//! What is told of hosts that fall silent, of restarts, and of what comes late.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_data_alert_fires_once_and_not_on_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) =
        (Arc::new(ManualClock::starting_at(T0)), Arc::new(RecordingNotifier::default()), shape());
    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    site.start();
    let silent = rule(2, json!({"kind": "silent", "grace": "60s"}), 0);
    site.set_definitions(vec![silent], vec![channel("a")], vec![]).await;
    for _ in 0..20 {
        for number in 1..=8 {
            site.send(host(number), &shape, [100, 500], 0).await;
        }
        clock.advance(Duration::from_secs(2));
    }
    // All but one go on.
    for _ in 0..40 {
        for number in 2..=8 {
            site.send(host(number), &shape, [100, 500], 0).await;
        }
        clock.advance(Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    site.wait_for(|site| site.sent_reasons() == 1).await;
    let heard = ears.sent.lock().unwrap().drain(..).collect::<Vec<_>>();
    assert_eq!(heard[0].2, "host-1: rule 2");
    site.crash().await;
    // Nobody was heard by the hub that starts, and nobody is down for it; the one still is.
    clock.advance(Duration::from_secs(600));
    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    site.start();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for number in 2..=8 {
        site.send(host(number), &shape, [100, 500], 0).await;
    }
    clock.advance(Duration::from_secs(50));
    for number in 2..=8 {
        site.send(host(number), &shape, [100, 500], 0).await;
    }
    clock.advance(Duration::from_secs(50));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(site.sent(), []);
    clock.advance(Duration::from_secs(1));
    site.send(host(1), &shape, [100, 500], 0).await;
    site.wait_for(|site| site.sent_reasons() == 1).await;
    assert_eq!(site.sent(), sent_notifications(&[("a", Resolved)]));
    site.crash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backfilled_alerts_are_recorded_without_notification() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) =
        (Arc::new(ManualClock::starting_at(T0)), Arc::new(RecordingNotifier::default()), shape());
    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    site.start();
    site.set_definitions(vec![cpu()], vec![channel("a")], vec![]).await;
    site.send(host(1), &shape, [100, 500], 3_700_000).await;
    wait_until_idle().await;
    for ago_s in (3_000..3_600_i64).rev().step_by(2) {
        let busy = (3_200..3_300).contains(&ago_s);
        site.send(host(1), &shape, [if busy { 950 } else { 100 }, 500], ago_s * 1_000).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(site.sent(), []);
    let state = site.alerting.snapshot();
    let live = state.incidents.iter().next().expect("it stands in the books");
    assert_eq!((live.alerts.len(), live.alerts[0].body.resolve_reason.as_deref()), (1, Some("backfilled")));
    // What began then and is so still is told.
    for ago_s in (0..600_i64).rev().step_by(2) {
        site.send(host(1), &shape, [950, 500], ago_s * 1_000).await;
    }
    site.wait_for(|site| site.sent_reasons() == 1).await;
    site.run(host(1), &shape, 10, 950).await;
    assert_eq!(site.sent(), sent_notifications(&[("a", Opened)]));
    site.crash().await;
}

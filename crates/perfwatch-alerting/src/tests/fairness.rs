//! Who is told although something stands in the way: other channels that are dead, an incident
//! that flapped, a silence that began later, a hub that stood still.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_channel_does_not_block_others() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) =
        (Arc::new(ManualClock::starting_at(T0)), Arc::new(RecordingNotifier::default()), shape());
    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    site.start();
    let now = Rule { hold_for: HumanDuration::default(), ..cpu() };
    site.set_definitions(vec![now], vec![channel("dead"), channel("fine")], vec![]).await;
    let gone = SendError::Retry { reason: "connection refused".to_owned(), retry_after: None };
    ears.deaf.lock().unwrap().push(("dead".to_owned(), gone));
    // More than are looked at together, each of a host of its own.
    for number in 1..=230 {
        site.send(host(number), &shape, [950, 500], 0).await;
    }
    site.wait_for(|site| site.sent_reasons() >= 1).await;
    clock.advance(Duration::from_secs(2));
    site.send(host(999), &shape, [950, 500], 0).await;
    let hears = |site: &TestInstall| {
        ears.sent
            .lock()
            .unwrap()
            .iter()
            .any(|(_, _, subject)| subject.contains("999") || subject.contains("waited"))
            && site.sent_reasons() > 0
    };
    site.wait_for(hears).await;
    for _ in 0..50 {
        if site.messages(NotificationState::Sent).await.len() >= 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(site.sent().iter().all(|(kind, _)| kind == "fine"));
    assert!(site.messages(NotificationState::Sent).await.len() >= 100, "the list is cut at a hundred");
    site.crash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_alert_notifies_in_a_flapping_incident() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) =
        (Arc::new(ManualClock::starting_at(T0)), Arc::new(RecordingNotifier::default()), shape());
    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    site.start();
    let memory = rule(2, json!({"kind": "value", "metric": "memory.used_percent", "threshold": 90}), 0);
    site.set_definitions(
        vec![Rule { hold_for: HumanDuration::default(), ..cpu() }, memory],
        vec![channel("a")],
        vec![],
    )
    .await;
    for _ in 0..5 {
        site.run(host(1), &shape, 4, 950).await;
        site.run(host(1), &shape, 4, 100).await;
    }
    site.wait_for(|site| site.sent_reasons() == 4).await;
    site.sent();
    site.send(host(1), &shape, [100, 990], 0).await;
    site.wait_for(|site| site.sent_reasons() == 1).await;
    let heard = ears.sent.lock().unwrap().drain(..).collect::<Vec<_>>();
    assert_eq!((heard[0].1, heard[0].2.as_str()), (Reopened, "host-1: rule 2"));
    site.crash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_silence_suppresses_reminders_and_expiry_notifies() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) =
        (Arc::new(ManualClock::starting_at(T0)), Arc::new(RecordingNotifier::default()), shape());
    let mut site = TestInstall::open(folder.path(), &clock, &ears).await;
    site.start();
    let team = Channel { repeat_interval: HumanDuration::from_s(300), ..channel("team") };
    site.set_definitions(vec![cpu()], vec![team.clone()], vec![]).await;
    site.run(host(1), &shape, 20, 950).await;
    site.wait_for(|site| site.sent_reasons() == 1).await;
    let now_ms = clock.wall_ms();
    let silence = Silence {
        id: Uuid::now_v7(),
        matcher: Matcher::default(),
        comment: String::new(),
        created_by: "user a".into(),
        created_ms: now_ms,
        starts_ms: now_ms,
        ends_ms: Some(now_ms + 3_600_000),
        weekly: None,
    };
    site.set_definitions(vec![cpu()], vec![team], vec![silence]).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for _ in 0..4 {
        clock.advance(Duration::from_secs(301));
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
    assert_eq!(site.sent(), sent_notifications(&[("team", Opened)]));
    let skipped = site.messages(NotificationState::Suppressed).await;
    assert!(skipped.iter().any(|row| row.error.as_deref() == Some("a silence holds")), "{skipped:?}");
    clock.advance(Duration::from_secs(3_600));
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    clock.advance(Duration::from_secs(31));
    site.wait_for(|site| site.sent_reasons() == 1).await;
    assert_eq!(site.sent(), sent_notifications(&[("team", NotificationReason::Updated)]));
    site.crash().await;
}

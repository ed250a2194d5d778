//! Who is told although something stands in the way: other channels that are dead, an incident
//! that flapped, a silence that began later, a hub that stood still.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_channel_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) = (Arc::new(ManualClock::at(T0)), Arc::new(Ears::default()), shape());
    let mut site = Site::open(folder.path(), &clock, &ears).await;
    site.start();
    let now = Rule { for_: Span::default(), ..cpu() };
    site.ask(vec![now], vec![channel("dead"), channel("fine")], vec![]).await;
    let gone = SendError::Retry { why: "connection refused".to_owned(), after: None };
    ears.deaf.lock().unwrap().push(("dead".to_owned(), gone));
    // More than are looked at together, each of a host of its own.
    for number in 1..=230 {
        site.send(host(number), &shape, [950, 500], 0).await;
    }
    site.wait_for(|site| site.said() >= 1).await;
    clock.advance(Duration::from_secs(2));
    site.send(host(999), &shape, [950, 500], 0).await;
    let hears = |site: &Site| {
        ears.heard
            .lock()
            .unwrap()
            .iter()
            .any(|(_, _, subject)| subject.contains("999") || subject.contains("waited"))
            && site.said() > 0
    };
    site.wait_for(hears).await;
    for _ in 0..50 {
        if site.messages("sent").await.len() >= 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(site.heard().iter().all(|(kind, _)| kind == "fine"));
    assert!(site.messages("sent").await.len() >= 100, "the list is cut at a hundred");
    site.die().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_alert_is_news_whatever_flapped_before() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) = (Arc::new(ManualClock::at(T0)), Arc::new(Ears::default()), shape());
    let mut site = Site::open(folder.path(), &clock, &ears).await;
    site.start();
    let memory = rule(2, json!({"kind": "value", "metric": "memory.used_percent", "threshold": 90}), 0);
    site.ask(vec![Rule { for_: Span::default(), ..cpu() }, memory], vec![channel("a")], vec![]).await;
    for _ in 0..5 {
        site.run(host(1), &shape, 4, 950).await;
        site.run(host(1), &shape, 4, 100).await;
    }
    site.wait_for(|site| site.said() == 4).await;
    site.heard();
    site.send(host(1), &shape, [100, 990], 0).await;
    site.wait_for(|site| site.said() == 1).await;
    let heard = ears.heard.lock().unwrap().drain(..).collect::<Vec<_>>();
    assert_eq!((heard[0].1, heard[0].2.as_str()), (Reopened, "host-1: rule 2"));
    site.die().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silence_that_begins_later_holds_reminders_too_and_its_end_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears, shape) = (Arc::new(ManualClock::at(T0)), Arc::new(Ears::default()), shape());
    let mut site = Site::open(folder.path(), &clock, &ears).await;
    site.start();
    let team = Channel { repeat: Span::from_s(300), ..channel("team") };
    site.ask(vec![cpu()], vec![team.clone()], vec![]).await;
    site.run(host(1), &shape, 20, 950).await;
    site.wait_for(|site| site.said() == 1).await;
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
    site.ask(vec![cpu()], vec![team], vec![silence]).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for _ in 0..4 {
        clock.advance(Duration::from_secs(301));
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
    assert_eq!(site.heard(), told(&[("team", Opened)]));
    let skipped = site.messages("skipped").await;
    assert!(skipped.iter().any(|row| row.error.as_deref() == Some("a silence holds")), "{skipped:?}");
    clock.advance(Duration::from_secs(3_600));
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    clock.advance(Duration::from_secs(31));
    site.wait_for(|site| site.said() == 1).await;
    assert_eq!(site.heard(), told(&[("team", Notice::Changed)]));
    site.die().await;
}

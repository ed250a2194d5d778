//! Settings of channels as they stand in the store: of an earlier version in clear, of another key.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stood_in_clear_is_sealed_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears) = (Arc::new(ManualClock::at(T0)), Arc::new(Ears::default()));
    let site = Site::open(folder.path(), &clock, &ears).await;
    let settings = Settings::from([("url".to_owned(), "https://chat.example/T0KEN".to_owned())]);
    let plain = Channel { settings: settings.clone(), ..channel("chat") };
    let others = (0..7).map(|_| Channel { id: Uuid::now_v7(), ..plain.clone() });
    let channels: Vec<Channel> = std::iter::once(plain.clone()).chain(others).collect();
    site.ask(vec![], channels, vec![]).await;
    site.die().await;
    let site = Site::open(folder.path(), &clock, &ears).await;
    // A copy of the database has no trace of what stood there either.
    let copy = folder.path().join("copy");
    site.alerting.store().backup(&copy).await.unwrap();
    let copy = std::fs::read(copy).unwrap();
    assert!(!copy.windows(5).any(|bytes| bytes == b"T0KEN"));
    let kept = Noun::Channel.all(site.alerting.store()).await.unwrap();
    assert!(kept[0].1.contains("sealed") && !kept[0].1.contains("T0KEN"), "{}", kept[0].1);
    let known = site.alerting.now().asked.channels[0].clone();
    assert!(known.settings != settings && site.alerting.opened(&known).unwrap() == plain);
    // Not for another channel, and not in another one's place.
    let other = Channel { id: Uuid::now_v7(), ..(*known).clone() };
    assert!(site.alerting.opened(&other).is_err());
    // What can't be opened waits for its key.
    let said = site.alerting.say(&other, &site.alerting.test_message()).await;
    assert!(matches!(said, Err(SendError::Retry { why, .. }) if why.starts_with("its settings")));
    assert!(site.alerting.say(&known, &site.alerting.test_message()).await.is_ok());
    site.die().await;
}

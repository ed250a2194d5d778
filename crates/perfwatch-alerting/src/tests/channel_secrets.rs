//! Settings of channels as they stand in the store: of an earlier version in clear, of another key.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_settings_are_encrypted_at_startup() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, ears) = (Arc::new(ManualClock::starting_at(T0)), Arc::new(RecordingNotifier::default()));
    let site = TestInstall::open(folder.path(), &clock, &ears).await;
    let settings = ChannelSettings::from([("url".to_owned(), "https://chat.example/T0KEN".to_owned())]);
    let plain = Channel { settings: settings.clone(), ..channel("chat") };
    let others = (0..7).map(|_| Channel { id: Uuid::now_v7(), ..plain.clone() });
    let channels: Vec<Channel> = std::iter::once(plain.clone()).chain(others).collect();
    site.set_definitions(vec![], channels, vec![]).await;
    site.crash().await;
    let site = TestInstall::open(folder.path(), &clock, &ears).await;
    // A copy of the database has no trace of what stood there either.
    let copy = folder.path().join("copy");
    site.alerting.store().backup(&copy).await.unwrap();
    let copy = std::fs::read(copy).unwrap();
    assert!(!copy.windows(5).any(|bytes| bytes == b"T0KEN"));
    let kept = DefinitionKind::Channel.list(site.alerting.store()).await.unwrap();
    assert!(kept[0].1.contains("sealed") && !kept[0].1.contains("T0KEN"), "{}", kept[0].1);
    let known = site.alerting.snapshot().definitions.channels[0].clone();
    assert!(known.settings != settings && site.alerting.decrypt(&known).unwrap() == plain);
    // Not for another channel, and not in another one's place.
    let other = Channel { id: Uuid::now_v7(), ..(*known).clone() };
    assert!(site.alerting.decrypt(&other).is_err());
    // What can't be opened waits for its key.
    let said = site.alerting.send(&other, &site.alerting.test_notification()).await;
    assert!(matches!(said, Err(SendError::Retry { reason, .. }) if reason.starts_with("its settings")));
    assert!(site.alerting.send(&known, &site.alerting.test_notification()).await.is_ok());
    site.crash().await;
}

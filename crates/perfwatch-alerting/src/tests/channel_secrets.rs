//! Encryption of channel settings in the store.

use super::harness::{TestSite, channel};
use perfwatch_rules::channel::Channel;
use perfwatch_rules::notification::{ChannelSettings, SendError};
use perfwatch_store::definitions::DefinitionKind;
use uuid::Uuid;

#[tokio::test(start_paused = true)]
async fn plaintext_settings_are_encrypted_at_startup() {
    let site = TestSite::new();
    let hub = site.open().await;
    let settings = ChannelSettings::from([("url".to_owned(), "https://chat.example/T0KEN".to_owned())]);
    let plain = Channel { settings: settings.clone(), ..channel("chat") };
    let others = (0..7).map(|_| Channel { id: Uuid::now_v7(), ..plain.clone() });
    let channels: Vec<Channel> = std::iter::once(plain.clone()).chain(others).collect();
    hub.set_definitions(vec![], channels, vec![]).await;
    hub.crash().await;
    let hub = site.open().await;
    // A backup of the database contains no remains of the plain text.
    let backup = site.folder.path().join("backup");
    hub.alerting.store().backup(&backup).await.unwrap();
    let backup = std::fs::read(backup).unwrap();
    assert!(!backup.windows(5).any(|bytes| bytes == b"T0KEN"));
    let stored = DefinitionKind::Channel.list(hub.alerting.store()).await.unwrap();
    assert!(stored[0].1.contains("encrypted") && !stored[0].1.contains("T0KEN"), "{}", stored[0].1);
    let cached = hub.alerting.snapshot().definitions.channels[0].clone();
    assert!(cached.settings != settings && hub.alerting.decrypt(&cached).unwrap() == plain);
    // The ciphertext is bound to its channel.
    let other = Channel { id: Uuid::now_v7(), ..(*cached).clone() };
    assert!(hub.alerting.decrypt(&other).is_err());
    // Settings that cannot be decrypted are retried, because the key may be added.
    let result = hub.alerting.send(&other, &hub.alerting.test_notification()).await;
    let is_settings_error = |reason: &str| reason.starts_with("channel settings: ");
    assert!(matches!(result, Err(SendError::Transient { reason, .. }) if is_settings_error(&reason)));
    assert!(hub.alerting.send(&cached, &hub.alerting.test_notification()).await.is_ok());
    hub.crash().await;
}

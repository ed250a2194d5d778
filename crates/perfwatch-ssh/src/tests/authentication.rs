//! Tests of credentials, host keys and jump hosts.

use super::{cause, collect_request, current_user, local, ssh_collector, target, target_with_key};
use perfwatch_model::remote_collector::{
    CollectionStage, FailureCause, RemoteCollector as _, SshAuth, SshTarget,
};
use perfwatch_testkit::sshd::{PASSWORD, Sshd, USER, make_key};
use std::net::Ipv4Addr;
use std::sync::Arc;
use uuid::Uuid;

#[tokio::test]
async fn key_types_and_passphrases_are_accepted() {
    let server = Sshd::start(local(3), &["ForceCommand cat /proc/loadavg; exit 7"]);
    let collector = ssh_collector();
    let with = |key: String, passphrase: Option<&str>| {
        let auth = SshAuth::Key { key: key.into(), passphrase: passphrase.map(Into::into) };
        target(server.address(), &current_user(), auth)
    };
    // Authenticated; then the forced command fails.
    for kind in ["ed25519", "rsa", "ecdsa"] {
        let outcome = collector.collect(collect_request(&with(server.key(kind), None))).await;
        assert_eq!(cause(&outcome), (CollectionStage::Shell, FailureCause::CommandFailed), "{kind}");
        assert!(outcome.result.unwrap_err().message.contains("exited with 7"));
    }
    let encrypted = make_key(server.folder(), "ed25519", "open sesame");
    server.allow(&encrypted);
    let encrypted = std::fs::read_to_string(encrypted).unwrap();
    let outcome = collector.collect(collect_request(&with(encrypted.clone(), Some("open sesame")))).await;
    assert_eq!(cause(&outcome), (CollectionStage::Shell, FailureCause::CommandFailed));
    for (key, passphrase, text) in [
        (encrypted.clone(), None, "encrypted"),
        (encrypted, Some("wrong"), "passphrase"),
        ("no key at all".to_owned(), None, "not a private key"),
    ] {
        let outcome = collector.collect(collect_request(&with(key, passphrase))).await;
        assert_eq!(cause(&outcome), (CollectionStage::Authenticate, FailureCause::InvalidPrivateKey));
        assert!(outcome.result.unwrap_err().message.contains(text), "{text}");
    }
    let directory = tempfile::tempdir().unwrap();
    let unknown_key = std::fs::read_to_string(make_key(directory.path(), "ed25519", "")).unwrap();
    assert_eq!(
        cause(&collector.collect(collect_request(&with(unknown_key, None))).await),
        (CollectionStage::Authenticate, FailureCause::AuthenticationFailed)
    );
}

#[tokio::test]
async fn wrong_password_is_tried_once() {
    if current_user() != "root" {
        eprintln!("skipped: servers with passwords need root");
        return;
    }
    let server = Sshd::start_with_passwords(local(4), &[]);
    let collector = ssh_collector();
    let with = |password: &str| target(server.address(), USER, SshAuth::Password(password.into()));
    let outcome = collector.collect(collect_request(&with(PASSWORD))).await;
    assert!(outcome.result.is_ok(), "{outcome:?}");
    let outcome = collector.collect(collect_request(&with("wrong"))).await;
    assert_eq!(cause(&outcome), (CollectionStage::Authenticate, FailureCause::AuthenticationFailed));
    assert!(cause(&outcome).1.is_permanent());
    assert_eq!(server.log().matches("Failed password").count(), 1, "{}", server.log());
    // A server that offers keys only receives no password.
    let server = Sshd::start(local(5), &[]);
    let outcome = collector
        .collect(collect_request(&target(server.address(), USER, SshAuth::Password(PASSWORD.into()))))
        .await;
    assert_eq!(cause(&outcome), (CollectionStage::Authenticate, FailureCause::AuthenticationFailed));
    assert!(outcome.result.unwrap_err().message.contains("publickey"));
}

/// Server that signals the receipt of a password and never responds to it.
struct PasswordRecorder(Arc<tokio::sync::Notify>);

impl russh::server::Handler for PasswordRecorder {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<russh::server::Auth, Self::Error> {
        self.0.notify_one();
        std::future::pending().await
    }
}

#[tokio::test]
async fn disconnect_at_password_is_not_a_refusal() {
    let directory = tempfile::tempdir().unwrap();
    let key = russh::keys::load_secret_key(make_key(directory.path(), "ed25519", ""), None).unwrap();
    let config = Arc::new(russh::server::Config { keys: vec![key], ..Default::default() });
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = Arc::new(tokio::sync::Notify::new());
    let handler = PasswordRecorder(received.clone());
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let (mut near, inside) = tokio::io::duplex(1 << 16);
        let server = tokio::spawn(russh::server::run_stream(config, inside, handler));
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut near) => {}
            () = received.notified() => {}
        }
        server.abort();
    });
    let outcome = ssh_collector()
        .collect(collect_request(&target(address, USER, SshAuth::Password(PASSWORD.into()))))
        .await;
    assert_eq!(
        cause(&outcome),
        (CollectionStage::Authenticate, FailureCause::ConnectionClosed),
        "{outcome:?}"
    );
    assert!(!cause(&outcome).1.is_permanent());
}

#[tokio::test]
async fn changed_host_key_receives_no_credentials() {
    let mut server = Sshd::start(local(6), &[]);
    let collector = ssh_collector();
    let target = target_with_key(&server, "ed25519");
    let pinned_key = collector.collect(collect_request(&target)).await.host_keys.remove(0).1;
    let pinned = SshTarget { pinned_host_key: Some(pinned_key.clone()), ..target };
    assert!(collector.collect(collect_request(&pinned)).await.result.is_ok());
    let logins = server.log().matches("Accepted").count();
    server.change_host_key();
    let outcome = collector.collect(collect_request(&pinned)).await;
    assert_eq!(cause(&outcome), (CollectionStage::Handshake, FailureCause::HostKeyChanged));
    let failure = outcome.result.unwrap_err();
    assert!(
        failure.message.contains(&pinned_key)
            && failure.offered_host_key.is_some_and(|key| key != pinned_key)
    );
    assert!(outcome.host_keys.is_empty());
    assert_eq!(server.log().matches("Accepted").count(), logins);
}

#[tokio::test]
async fn jump_host() {
    let (near, far) = (Sshd::start(local(8), &[]), Sshd::start(local(9), &[]));
    let collector = ssh_collector();
    let jump = target_with_key(&near, "rsa");
    let target = SshTarget { jump: Some(Box::new(jump.clone())), ..target_with_key(&far, "ed25519") };
    let outcome = collector.collect(collect_request(&target)).await;
    assert!(outcome.result.is_ok(), "{outcome:?}");
    let server_ids: Vec<Uuid> = outcome.host_keys.iter().map(|(server_id, _)| *server_id).collect();
    assert_eq!(server_ids, [jump.server_id, target.server_id]);
    // An unreachable target and a failing jump host are distinguished.
    let unreachable = SshTarget { port: 1, ..target.clone() };
    assert_eq!(
        cause(&collector.collect(collect_request(&unreachable)).await),
        (CollectionStage::Connect, FailureCause::Unreachable)
    );
    let wrong_user = SshTarget { user: "no-such-user".to_owned(), ..jump };
    let outcome =
        collector.collect(collect_request(&SshTarget { jump: Some(Box::new(wrong_user)), ..target })).await;
    assert_eq!(cause(&outcome), (CollectionStage::Authenticate, FailureCause::AuthenticationFailed));
    assert!(outcome.result.unwrap_err().message.starts_with("jump host 127.0.7.8: "));
}

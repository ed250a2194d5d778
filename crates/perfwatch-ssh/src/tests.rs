//! Tests against OpenSSH's server and against faulty servers.

use crate::SshCollector;
use crate::connect_trace::StageTimeouts;
use perfwatch_collect::{CollectorCache, CollectorOptions, CollectorSet, LocalRoot, read_all};
use perfwatch_model::remote_collector::{
    CollectRequest, CollectionOutcome, CollectionStage, FailureCause, RemoteCollector as _, SshAuth,
    SshTarget,
};
use perfwatch_model::{SystemClock, unscale};
use perfwatch_testkit::sshd::{FaultScript, FaultyServer, PASSWORD, Sshd, USER, make_key};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

fn ssh_collector() -> SshCollector {
    SshCollector::new(Arc::new(SystemClock::new()))
}

/// Collector for servers that never respond.
fn short_timeouts() -> SshCollector {
    let mut collector = ssh_collector();
    let short = Duration::from_secs(2);
    collector.timeouts =
        StageTimeouts { handshake: short, authenticate: short, shell: short, ..StageTimeouts::default() };
    collector
}

fn target(address: SocketAddr, user: &str, auth: SshAuth) -> SshTarget {
    let (address, port) = (address.ip().to_string(), address.port());
    SshTarget {
        server_id: Uuid::now_v7(),
        address,
        port,
        user: user.to_owned(),
        auth,
        pinned_host_key: None,
        jump: None,
    }
}

fn target_with_key(server: &Sshd, kind: &str) -> SshTarget {
    let auth = SshAuth::Key { key: server.key(kind).into(), passphrase: None };
    target(server.address(), &current_user(), auth)
}

fn current_user() -> String {
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string())).unwrap();
    line.split(':').next().unwrap().to_owned()
}

fn collect_request(target: &SshTarget) -> CollectRequest {
    let hour = Duration::from_secs(3_600);
    CollectRequest {
        target: target.clone(),
        counter_state: None,
        max_counter_age: hour,
        interval: Duration::from_secs(60),
        keep_alive: Duration::ZERO,
        force_new_connection: false,
    }
}

/// Pause after which rates can be derived.
const RATE_PAUSE: Duration = Duration::from_millis(2_100);

fn local(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 7, last)
}

fn cause(outcome: &CollectionOutcome) -> (CollectionStage, FailureCause) {
    let failure = outcome.result.as_ref().expect_err("should have failed");
    (failure.stage, failure.cause)
}

#[tokio::test]
async fn ssh_snapshot_equals_agent_snapshot() {
    let server = Sshd::start(local(1), &["MaxSessions 1"]);
    let collector = ssh_collector();
    let target = target_with_key(&server, "ed25519");
    let outcome = collector.collect(collect_request(&target)).await;
    let collected = outcome.result.unwrap();
    let stages: Vec<CollectionStage> = outcome.steps.iter().map(|step| step.stage).collect();
    use CollectionStage::{Connect, Handshake, Read, Resolve, Shell};
    assert_eq!(stages, [Resolve, Connect, Handshake, CollectionStage::Authenticate, Shell, Read, Read]);
    assert!(outcome.host_keys[0].1.starts_with("ssh-ed25519 SHA256:"), "{:?}", outcome.host_keys);
    // Static values are equal; changing values are present.
    let root = LocalRoot::new(Path::new("/proc"), Path::new("/sys"), Path::new("/"));
    let clock = SystemClock::new();
    let set =
        CollectorSet::new(&[], CollectorOptions { top_processes: usize::MAX, ..CollectorOptions::default() });
    let mut deriver = perfwatch_collect::Deriver::default();
    deriver
        .derive(&read_all(&root, &set, &mut CollectorCache::default(), &clock), &CollectorOptions::default());
    std::thread::sleep(Duration::from_millis(200));
    let expected = deriver
        .derive(&read_all(&root, &set, &mut CollectorCache::default(), &clock), &CollectorOptions::default());
    let collected_value = |metric: &str, instance: &str| collected.snapshot.value(metric, instance);
    let static_metrics = [
        "memory.total",
        "swap.total",
        "filesystem.size",
        "cpu.cores",
        "file_descriptors.max",
        "network.speed",
        "filesystem.read_only",
    ];
    for sample in expected.samples.iter().filter(|sample| !sample.value.is_nan()) {
        let value = collected_value(sample.metric.name, &sample.instance);
        assert!(value.is_some(), "{} {{{}}} is missing", sample.metric.name, sample.instance);
        if static_metrics.contains(&sample.metric.name) {
            let rounded =
                unscale(perfwatch_model::scale(sample.value, sample.metric.decimals), sample.metric.decimals);
            assert_eq!(value, rounded, "{}", sample.metric.name);
        }
    }
    let facts = |facts: perfwatch_model::HostFacts| {
        (facts.os, facts.kernel, facts.arch, facts.cores, facts.cpu_model)
    };
    assert_eq!(facts((**collected.snapshot.facts.as_ref().unwrap()).clone()), facts(expected.facts.unwrap()));
    assert!(collected.snapshot.errors.is_empty(), "{:?}", collected.snapshot.errors);
    assert!(collected.snapshot.processes.iter().any(|row| !row.user.is_empty() && !row.command.is_empty()));
    assert!(collected.skew_ms.abs() < 2_000, "{}", collected.skew_ms);
    assert_eq!(collected.snapshot.interval_ms, 60_000);

    // The next collection needs one reading, also on another connection of another worker.
    tokio::time::sleep(RATE_PAUSE).await;
    let next = self::ssh_collector()
        .collect(CollectRequest {
            counter_state: Some(collected.counter_state.clone()),
            ..collect_request(&target)
        })
        .await;
    assert_eq!(next.steps.iter().filter(|step| step.stage == Read).count(), 1);
    assert!(next.result.unwrap().snapshot.value("cpu.usage", "").is_some());
    // Counter state that is too old or malformed is ignored.
    for (counter_state, max_age) in
        [(collected.counter_state, Duration::ZERO), (b"garbage".to_vec(), Duration::from_secs(60))]
    {
        let next = collector
            .collect(CollectRequest {
                counter_state: Some(counter_state),
                max_counter_age: max_age,
                ..collect_request(&target)
            })
            .await;
        assert_eq!(next.steps.iter().filter(|step| step.stage == Read).count(), 2, "{next:?}");
        assert!(next.result.unwrap().snapshot.value("cpu.usage", "").is_some());
    }
}

#[tokio::test]
async fn connection_is_reused() {
    let server = Sshd::start(local(2), &["MaxSessions 1"]);
    let collector = ssh_collector();
    let target = target_with_key(&server, "ed25519");
    let request = |counter_state| CollectRequest {
        keep_alive: Duration::from_secs(4),
        counter_state,
        ..collect_request(&target)
    };
    let mut counter_state = collector.collect(request(None)).await.result.unwrap().counter_state;
    for _ in 0..2 {
        tokio::time::sleep(RATE_PAUSE).await;
        let outcome = collector.collect(request(Some(counter_state))).await;
        assert_eq!(outcome.steps.len(), 1, "{:?}", outcome.steps);
        counter_state = outcome.result.unwrap().counter_state;
    }
    assert_eq!((collector.open_connections(), server.log().matches("Accepted publickey").count()), (1, 1));
    // Other credentials need another connection.
    let other = target_with_key(&server, "ecdsa");
    let other = SshTarget { server_id: target.server_id, ..other };
    let outcome =
        collector.collect(CollectRequest { target: other, ..request(Some(counter_state.clone())) }).await;
    assert!(outcome.steps.len() > 1 && outcome.result.is_ok());
    assert_eq!(collector.open_connections(), 1);
    // Closed when unused for the requested time.
    for _ in 0..100 {
        if collector.open_connections() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(collector.open_connections(), 0);
    // A lost connection is replaced without a failure.
    collector.collect(request(Some(counter_state.clone()))).await.result.unwrap();
    server.drop_connections();
    let outcome = collector.collect(request(Some(counter_state))).await;
    assert!(outcome.result.is_ok(), "{outcome:?}");
    collector.close_connection(target.server_id);
    assert_eq!(collector.open_connections(), 0);
}

#[tokio::test]
async fn forced_command_with_busybox() {
    // Only busybox's programs, and the probe as forced command.
    let directory = tempfile::tempdir().unwrap();
    let programs =
        std::process::Command::new("busybox").arg("--list").output().expect("run scripts/ensure-sshd");
    for name in String::from_utf8(programs.stdout).unwrap().lines() {
        let _ = std::os::unix::fs::symlink("/bin/busybox", directory.path().join(name));
    }
    let root = directory.path().display();
    let probe = crate::PROBE.replace("PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin", &format!("PATH={root}"));
    std::fs::write(directory.path().join("probe.sh"), probe).unwrap();
    let server = Sshd::start(local(10), &[&format!("ForceCommand {root}/sh {root}/probe.sh")]);
    let (collector, target) = (ssh_collector(), target_with_key(&server, "ed25519"));
    let keep_alive = Duration::from_secs(5);
    let collected =
        collector.collect(CollectRequest { keep_alive, ..collect_request(&target) }).await.result.unwrap();
    tokio::time::sleep(RATE_PAUSE).await;
    let next = collector
        .collect(CollectRequest {
            keep_alive,
            counter_state: Some(collected.counter_state.clone()),
            ..collect_request(&target)
        })
        .await;
    assert_eq!(next.steps.len(), 1);
    let snapshot = next.result.unwrap().snapshot;
    assert!(snapshot.errors.is_empty(), "{:?}", snapshot.errors);
    for metric in ["cpu.usage", "memory.used_percent", "load.1m", "processes.total", "system.uptime"] {
        assert!(snapshot.value(metric, "").is_some(), "{metric}");
    }
    assert!(snapshot.value("filesystem.used_percent", "/").is_some());
    assert!(snapshot.processes.iter().any(|row| !row.user.is_empty() && row.open_files.is_some()));
}

#[tokio::test]
async fn all_key_types_and_passphrases() {
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

#[tokio::test]
async fn faulty_servers_fail_cleanly() {
    let (default_timeouts, short_timeouts) = (ssh_collector(), short_timeouts());
    let auth = || SshAuth::Password("secret".into());
    for (fault, expected) in [
        (FaultScript::Silent, FailureCause::TimedOut),
        (FaultScript::SlowBanner, FailureCause::TimedOut),
        (FaultScript::RandomBytes, FailureCause::NotSsh),
        (FaultScript::EndlessBanner, FailureCause::NotSsh),
        (FaultScript::Reset, FailureCause::ConnectionClosed),
        (FaultScript::StallAfterBanner, FailureCause::TimedOut),
        (FaultScript::GarbageAfterBanner, FailureCause::NotSsh),
    ] {
        let server = FaultyServer::start(fault);
        let collector = if expected == FailureCause::TimedOut { &short_timeouts } else { &default_timeouts };
        let outcome = collector.collect(collect_request(&target(server.address(), "me", auth()))).await;
        assert_eq!(cause(&outcome), (CollectionStage::Handshake, expected), "{fault:?}: {outcome:?}");
        for _ in 0..100 {
            if server.open_connections() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(server.open_connections(), 0, "{fault:?}");
    }
    let closed = SocketAddr::from((local(99), 1));
    assert_eq!(
        cause(&default_timeouts.collect(collect_request(&target(closed, "me", auth()))).await),
        (CollectionStage::Connect, FailureCause::Unreachable)
    );
    let unknown = SshTarget { address: "no-such-host.invalid".to_owned(), ..target(closed, "me", auth()) };
    assert_eq!(
        cause(&default_timeouts.collect(collect_request(&unknown)).await),
        (CollectionStage::Resolve, FailureCause::DnsFailure)
    );
}

#[tokio::test]
async fn arbitrary_shell_output_is_handled() {
    let (default_timeouts, short_timeouts) = (ssh_collector(), short_timeouts());
    for (command, stage, expected) in [
        ("yes", CollectionStage::Shell, FailureCause::OutputTooLarge),
        ("echo === /a; yes", CollectionStage::Read, FailureCause::OutputTooLarge),
        ("true", CollectionStage::Shell, FailureCause::CommandFailed),
        ("echo no entry >&2; exit 7", CollectionStage::Shell, FailureCause::CommandFailed),
        ("kill -9 $PPID", CollectionStage::Shell, FailureCause::ConnectionClosed),
        ("head -c 100000 /dev/urandom", CollectionStage::Shell, FailureCause::OutputTooLarge),
        (
            "echo === /etc/hostname; echo a; echo b; echo c",
            CollectionStage::Read,
            FailureCause::UnparseableOutput,
        ),
        ("sleep 30", CollectionStage::Shell, FailureCause::TimedOut),
    ] {
        let server = Sshd::start(local(20), &[&format!("ForceCommand {command}")]);
        let collector = if expected == FailureCause::TimedOut { &short_timeouts } else { &default_timeouts };
        let outcome = collector.collect(collect_request(&target_with_key(&server, "ed25519"))).await;
        assert_eq!(cause(&outcome), (stage, expected), "{command}: {outcome:?}");
    }
}

/// Values that the agent derives from two captures.
fn agent_values(files: [&[u8]; 2]) -> Vec<(String, String, f64)> {
    let all = CollectorOptions { top_processes: usize::MAX, ..CollectorOptions::default() };
    let set = CollectorSet::new(&[], all.clone());
    let mut deriver = perfwatch_collect::Deriver::default();
    let mut derived = perfwatch_collect::Derived::default();
    for bytes in files {
        let capture = perfwatch_collect::Capture::parse(bytes).unwrap();
        let reading = read_all(&capture, &set, &mut CollectorCache::default(), &capture.clock());
        derived = deriver.derive(&reading, &all);
    }
    let samples = derived.samples.into_iter().filter(|sample| !sample.value.is_nan());
    samples
        .filter_map(|sample| {
            let value = unscale(
                perfwatch_model::scale(sample.value, sample.metric.decimals),
                sample.metric.decimals,
            )?;
            Some((sample.metric.name.to_owned(), sample.instance.to_string(), value))
        })
        .collect()
}

/// Capture of the Debian host with 128 cores instead of two.
fn with_many_cores(capture: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(capture);
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("cpu1 ") {
            None => out.push_str(line),
            Some(values) => (1..128).for_each(|core| out.push_str(&format!("cpu{core} {values}"))),
        }
    }
    out.into_bytes()
}

#[tokio::test]
async fn fixture_hosts_match_agent_output() {
    let hosts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perfwatch-collect/fixtures/hosts");
    let read = |name: &str| std::fs::read(hosts.join(format!("{name}.capture"))).unwrap();
    let pair = |name: &str| [read(&format!("{name}.1")), read(&format!("{name}.2"))];
    let debian = pair("debian12-vm");
    let many = [with_many_cores(&debian[0]), with_many_cores(&debian[1])];
    let old = [read("kernel-2.6"), read("kernel-2.6")];
    let collector = ssh_collector();
    for (name, files, last) in [
        ("debian", debian, 60),
        ("raspberry", pair("raspberry-pi"), 61),
        ("old", old, 62),
        ("many", many, 63),
    ] {
        let directory = tempfile::tempdir().unwrap();
        for (index, bytes) in files.iter().enumerate() {
            std::fs::write(directory.path().join(index.to_string()), bytes).unwrap();
        }
        // Prints the first capture once, then the second.
        let root = directory.path().display();
        let command = format!(
            "ForceCommand if [ -e {root}/seen ]; then cat {root}/1; else touch {root}/seen; cat {root}/0; fi"
        );
        let server = Sshd::start(local(last), &[&command]);
        let collected =
            collector.collect(collect_request(&target_with_key(&server, "ed25519"))).await.result.unwrap();
        let expected = agent_values([&files[0], &files[1]]);
        assert!(expected.len() > 20, "{name}: {}", expected.len());
        for (metric, instance, value) in &expected {
            assert_eq!(
                collected.snapshot.value(metric, instance),
                Some(*value),
                "{name}: {metric} {{{instance}}}"
            );
        }
        assert_eq!(collected.snapshot.sample_count(), expected.len(), "{name}");
        if name == "many" {
            assert!(
                collected.snapshot.value("cpu.core.usage", "127").is_some(),
                "{:?}",
                collected.snapshot.shape.columns().iter().map(|c| &c.metric).take(20).collect::<Vec<_>>()
            );
        }
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_faulty_servers_leak_nothing() {
    let mut collector = short_timeouts();
    let short = Duration::from_millis(400);
    collector.timeouts = StageTimeouts { handshake: short, ..collector.timeouts };
    let collector = Arc::new(collector);
    let faults = [
        FaultScript::Silent,
        FaultScript::SlowBanner,
        FaultScript::RandomBytes,
        FaultScript::EndlessBanner,
        FaultScript::Reset,
        FaultScript::StallAfterBanner,
        FaultScript::GarbageAfterBanner,
    ];
    let servers: Vec<FaultyServer> = faults.into_iter().map(FaultyServer::start).collect();
    let alive_tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (tasks, files) = (alive_tasks(), open_files());
    let permits = Arc::new(tokio::sync::Semaphore::new(50));
    let mut all = tokio::task::JoinSet::new();
    for index in 0..1_000 {
        let (collector, permits) = (collector.clone(), permits.clone());
        let target =
            target(servers[index % servers.len()].address(), "me", SshAuth::Password("secret".into()));
        all.spawn(async move {
            let _permit = permits.acquire().await.unwrap();
            collector.collect(collect_request(&target)).await.result.is_err()
        });
    }
    assert!(all.join_all().await.into_iter().all(|failed| failed));
    for _ in 0..200 {
        if servers.iter().all(|server| server.open_connections() == 0)
            && alive_tasks() <= tasks
            && open_files() <= files
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(servers.iter().all(|server| server.open_connections() == 0));
    assert!(
        alive_tasks() <= tasks && open_files() <= files,
        "{} tasks, {} files",
        alive_tasks(),
        open_files()
    );
    assert_eq!((collector.open_connections(), collector.slot_count()), (0, 0));
    // Threads of the runtime, of the servers of this test, and of other tests.
    assert!(threads() < 100, "{}", threads());
}

//! Against OpenSSH's own server, and against some that only look like one.

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

/// For those that never answer.
fn hasty() -> SshCollector {
    let mut looks = ssh_collector();
    let short = Duration::from_secs(2);
    looks.deadlines =
        StageTimeouts { handshake: short, login: short, shell: short, ..StageTimeouts::default() };
    looks
}

fn target(place: SocketAddr, user: &str, login: SshAuth) -> SshTarget {
    let (address, port) = (place.ip().to_string(), place.port());
    SshTarget {
        server_id: Uuid::now_v7(),
        address,
        port,
        user: user.to_owned(),
        auth: login,
        pinned_host_key: None,
        jump: None,
    }
}

fn by_key(server: &Sshd, kind: &str) -> SshTarget {
    let login = SshAuth::Key { key: server.key(kind).into(), passphrase: None };
    target(server.address(), &me(), login)
}

fn me() -> String {
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

/// Long enough for rates.
const AFTER: Duration = Duration::from_millis(2_100);

fn local(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 7, last)
}

fn cause(looked: &CollectionOutcome) -> (CollectionStage, FailureCause) {
    let failure = looked.result.as_ref().expect_err("should have failed");
    (failure.stage, failure.cause)
}

#[tokio::test]
async fn ssh_snapshot_equals_agent_snapshot() {
    let server = Sshd::start(local(1), &["MaxSessions 1"]);
    let looks = ssh_collector();
    let target = by_key(&server, "ed25519");
    let looked = looks.collect(collect_request(&target)).await;
    let seen = looked.result.unwrap();
    let names: Vec<CollectionStage> = looked.steps.iter().map(|step| step.stage).collect();
    use CollectionStage::{Connect, Handshake, Read, Resolve, Shell};
    assert_eq!(names, [Resolve, Connect, Handshake, CollectionStage::Authenticate, Shell, Read, Read]);
    assert!(looked.host_keys[0].1.starts_with("ssh-ed25519 SHA256:"), "{:?}", looked.host_keys);
    // What does not move is equal; what moves is there.
    let root = LocalRoot::new(Path::new("/proc"), Path::new("/sys"), Path::new("/"));
    let clock = SystemClock::new();
    let set =
        CollectorSet::new(&[], CollectorOptions { top_processes: usize::MAX, ..CollectorOptions::default() });
    let mut deriver = perfwatch_collect::Deriver::default();
    deriver
        .derive(&read_all(&root, &set, &mut CollectorCache::default(), &clock), &CollectorOptions::default());
    std::thread::sleep(Duration::from_millis(200));
    let own = deriver
        .derive(&read_all(&root, &set, &mut CollectorCache::default(), &clock), &CollectorOptions::default());
    let there = |metric: &str, instance: &str| seen.snapshot.value(metric, instance);
    let still = [
        "memory.total",
        "swap.total",
        "filesystem.size",
        "cpu.cores",
        "file_descriptors.max",
        "network.speed",
        "filesystem.read_only",
    ];
    for point in own.samples.iter().filter(|point| !point.value.is_nan()) {
        let value = there(point.metric.name, &point.instance);
        assert!(value.is_some(), "{} {{{}}} is missing", point.metric.name, point.instance);
        if still.contains(&point.metric.name) {
            let rounded =
                unscale(perfwatch_model::scale(point.value, point.metric.decimals), point.metric.decimals);
            assert_eq!(value, rounded, "{}", point.metric.name);
        }
    }
    let facts = |facts: perfwatch_model::HostFacts| {
        (facts.os, facts.kernel, facts.arch, facts.cores, facts.cpu_model)
    };
    assert_eq!(facts((**seen.snapshot.facts.as_ref().unwrap()).clone()), facts(own.facts.unwrap()));
    assert!(seen.snapshot.errors.is_empty(), "{:?}", seen.snapshot.errors);
    assert!(seen.snapshot.processes.iter().any(|row| !row.user.is_empty() && !row.command.is_empty()));
    assert!(seen.skew_ms.abs() < 2_000, "{}", seen.skew_ms);
    assert_eq!(seen.snapshot.interval_ms, 60_000);

    // The next look needs one reading, on another connection, by another worker.
    tokio::time::sleep(AFTER).await;
    let again = self::ssh_collector()
        .collect(CollectRequest {
            counter_state: Some(seen.counter_state.clone()),
            ..collect_request(&target)
        })
        .await;
    assert_eq!(again.steps.iter().filter(|step| step.stage == Read).count(), 1);
    assert!(again.result.unwrap().snapshot.value("cpu.usage", "").is_some());
    // Carried from too long ago, or garbled: as if there were none.
    for (carried, fresh) in
        [(seen.counter_state, Duration::ZERO), (b"garbage".to_vec(), Duration::from_secs(60))]
    {
        let again = looks
            .collect(CollectRequest {
                counter_state: Some(carried),
                max_counter_age: fresh,
                ..collect_request(&target)
            })
            .await;
        assert_eq!(again.steps.iter().filter(|step| step.stage == Read).count(), 2, "{again:?}");
        assert!(again.result.unwrap().snapshot.value("cpu.usage", "").is_some());
    }
}

#[tokio::test]
async fn connection_is_reused() {
    let server = Sshd::start(local(2), &["MaxSessions 1"]);
    let looks = ssh_collector();
    let target = by_key(&server, "ed25519");
    let held = |carried| CollectRequest {
        keep_alive: Duration::from_secs(4),
        counter_state: carried,
        ..collect_request(&target)
    };
    let mut carried = looks.collect(held(None)).await.result.unwrap().counter_state;
    for _ in 0..2 {
        tokio::time::sleep(AFTER).await;
        let looked = looks.collect(held(Some(carried))).await;
        assert_eq!(looked.steps.len(), 1, "{:?}", looked.steps);
        carried = looked.result.unwrap().counter_state;
    }
    assert_eq!((looks.open_connections(), server.log().matches("Accepted publickey").count()), (1, 1));
    // With other credentials it is not the same one.
    let other = by_key(&server, "ecdsa");
    let other = SshTarget { server_id: target.server_id, ..other };
    let looked = looks.collect(CollectRequest { target: other, ..held(Some(carried.clone())) }).await;
    assert!(looked.steps.len() > 1 && looked.result.is_ok());
    assert_eq!(looks.open_connections(), 1);
    // Let go of when nobody needed it.
    for _ in 0..100 {
        if looks.open_connections() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(looks.open_connections(), 0);
    // One that is gone is made again without a word.
    looks.collect(held(Some(carried.clone()))).await.result.unwrap();
    server.drop_connections();
    let looked = looks.collect(held(Some(carried))).await;
    assert!(looked.result.is_ok(), "{looked:?}");
    looks.close_connection(target.server_id);
    assert_eq!(looks.open_connections(), 0);
}

#[tokio::test]
async fn forced_command_with_busybox() {
    // Nothing but busybox's own programs, and nothing but the probe.
    let folder = tempfile::tempdir().unwrap();
    let programs =
        std::process::Command::new("busybox").arg("--list").output().expect("run scripts/ensure-sshd");
    for name in String::from_utf8(programs.stdout).unwrap().lines() {
        let _ = std::os::unix::fs::symlink("/bin/busybox", folder.path().join(name));
    }
    let here = folder.path().display();
    let probe = crate::PROBE.replace("PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin", &format!("PATH={here}"));
    std::fs::write(folder.path().join("probe.sh"), probe).unwrap();
    let server = Sshd::start(local(10), &[&format!("ForceCommand {here}/sh {here}/probe.sh")]);
    let (looks, target) = (ssh_collector(), by_key(&server, "ed25519"));
    let hold = Duration::from_secs(5);
    let seen =
        looks.collect(CollectRequest { keep_alive: hold, ..collect_request(&target) }).await.result.unwrap();
    tokio::time::sleep(AFTER).await;
    let again = looks
        .collect(CollectRequest {
            keep_alive: hold,
            counter_state: Some(seen.counter_state.clone()),
            ..collect_request(&target)
        })
        .await;
    assert_eq!(again.steps.len(), 1);
    let snapshot = again.result.unwrap().snapshot;
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
    let looks = ssh_collector();
    let with = |key: String, passphrase: Option<&str>| {
        let login = SshAuth::Key { key: key.into(), passphrase: passphrase.map(Into::into) };
        target(server.address(), &me(), login)
    };
    // Let in, and then told off by the command.
    for kind in ["ed25519", "rsa", "ecdsa"] {
        let looked = looks.collect(collect_request(&with(server.key(kind), None))).await;
        assert_eq!(cause(&looked), (CollectionStage::Shell, FailureCause::CommandFailed), "{kind}");
        assert!(looked.result.unwrap_err().message.contains("ended with 7"));
    }
    let locked = make_key(server.folder(), "ed25519", "open sesame");
    server.allow(&locked);
    let locked = std::fs::read_to_string(locked).unwrap();
    let looked = looks.collect(collect_request(&with(locked.clone(), Some("open sesame")))).await;
    assert_eq!(cause(&looked), (CollectionStage::Shell, FailureCause::CommandFailed));
    for (key, passphrase, word) in [
        (locked.clone(), None, "locked"),
        (locked, Some("wrong"), "passphrase"),
        ("no key at all".to_owned(), None, "no private key"),
    ] {
        let looked = looks.collect(collect_request(&with(key, passphrase))).await;
        assert_eq!(cause(&looked), (CollectionStage::Authenticate, FailureCause::InvalidPrivateKey));
        assert!(looked.result.unwrap_err().message.contains(word), "{word}");
    }
    let folder = tempfile::tempdir().unwrap();
    let stranger = std::fs::read_to_string(make_key(folder.path(), "ed25519", "")).unwrap();
    assert_eq!(
        cause(&looks.collect(collect_request(&with(stranger, None))).await),
        (CollectionStage::Authenticate, FailureCause::AuthenticationFailed)
    );
}

#[tokio::test]
async fn wrong_password_is_tried_once() {
    if me() != "root" {
        eprintln!("skipped: servers with passwords need root");
        return;
    }
    let server = Sshd::start_with_passwords(local(4), &[]);
    let looks = ssh_collector();
    let with = |password: &str| target(server.address(), USER, SshAuth::Password(password.into()));
    let looked = looks.collect(collect_request(&with(PASSWORD))).await;
    assert!(looked.result.is_ok(), "{looked:?}");
    let looked = looks.collect(collect_request(&with("wrong"))).await;
    assert_eq!(cause(&looked), (CollectionStage::Authenticate, FailureCause::AuthenticationFailed));
    assert!(cause(&looked).1.is_permanent());
    assert_eq!(server.log().matches("Failed password").count(), 1, "{}", server.log());
    // A server that knows keys alone is told no password.
    let server = Sshd::start(local(5), &[]);
    let looked = looks
        .collect(collect_request(&target(server.address(), USER, SshAuth::Password(PASSWORD.into()))))
        .await;
    assert_eq!(cause(&looked), (CollectionStage::Authenticate, FailureCause::AuthenticationFailed));
    assert!(looked.result.unwrap_err().message.contains("publickey"));
}

/// Tells when it hears a password, and says nothing to it.
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
    let folder = tempfile::tempdir().unwrap();
    let key = russh::keys::load_secret_key(make_key(folder.path(), "ed25519", ""), None).unwrap();
    let config = Arc::new(russh::server::Config { keys: vec![key], ..Default::default() });
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let place = listener.local_addr().unwrap();
    let heard = Arc::new(tokio::sync::Notify::new());
    let hears = PasswordRecorder(heard.clone());
    tokio::spawn(async move {
        let (mut outside, _) = listener.accept().await.unwrap();
        let (mut near, inside) = tokio::io::duplex(1 << 16);
        let server = tokio::spawn(russh::server::run_stream(config, inside, hears));
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut outside, &mut near) => {}
            () = heard.notified() => {}
        }
        server.abort();
    });
    let looked = ssh_collector()
        .collect(collect_request(&target(place, USER, SshAuth::Password(PASSWORD.into()))))
        .await;
    assert_eq!(cause(&looked), (CollectionStage::Authenticate, FailureCause::ConnectionClosed), "{looked:?}");
    assert!(!cause(&looked).1.is_permanent());
}

#[tokio::test]
async fn changed_host_key_receives_no_credentials() {
    let mut server = Sshd::start(local(6), &[]);
    let looks = ssh_collector();
    let target = by_key(&server, "ed25519");
    let pin = looks.collect(collect_request(&target)).await.host_keys.remove(0).1;
    let pinned = SshTarget { pinned_host_key: Some(pin.clone()), ..target };
    assert!(looks.collect(collect_request(&pinned)).await.result.is_ok());
    let logins = server.log().matches("Accepted").count();
    server.change_host_key();
    let looked = looks.collect(collect_request(&pinned)).await;
    assert_eq!(cause(&looked), (CollectionStage::Handshake, FailureCause::HostKeyChanged));
    let failure = looked.result.unwrap_err();
    assert!(failure.message.contains(&pin) && failure.offered_host_key.is_some_and(|key| key != pin));
    assert!(looked.host_keys.is_empty());
    assert_eq!(server.log().matches("Accepted").count(), logins);
}

#[tokio::test]
async fn jump_host() {
    let (near, far) = (Sshd::start(local(8), &[]), Sshd::start(local(9), &[]));
    let looks = ssh_collector();
    let jump = by_key(&near, "rsa");
    let target = SshTarget { jump: Some(Box::new(jump.clone())), ..by_key(&far, "ed25519") };
    let looked = looks.collect(collect_request(&target)).await;
    assert!(looked.result.is_ok(), "{looked:?}");
    let shown: Vec<Uuid> = looked.host_keys.iter().map(|(server, _)| *server).collect();
    assert_eq!(shown, [jump.server_id, target.server_id]);
    // What lies behind it does not answer, or it is itself the trouble: each is said.
    let nobody = SshTarget { port: 1, ..target.clone() };
    assert_eq!(
        cause(&looks.collect(collect_request(&nobody)).await),
        (CollectionStage::Connect, FailureCause::Unreachable)
    );
    let shut = SshTarget { user: "nobody-here".to_owned(), ..jump };
    let looked = looks.collect(collect_request(&SshTarget { jump: Some(Box::new(shut)), ..target })).await;
    assert_eq!(cause(&looked), (CollectionStage::Authenticate, FailureCause::AuthenticationFailed));
    assert!(looked.result.unwrap_err().message.starts_with("on the way, at 127.0.7.8"));
}

#[tokio::test]
async fn faulty_servers_fail_cleanly() {
    let (patient, hasty) = (ssh_collector(), hasty());
    let login = || SshAuth::Password("secret".into());
    for (trap, expected) in [
        (FaultScript::Silent, FailureCause::TimedOut),
        (FaultScript::SlowBanner, FailureCause::TimedOut),
        (FaultScript::RandomBytes, FailureCause::NotSsh),
        (FaultScript::EndlessBanner, FailureCause::NotSsh),
        (FaultScript::Reset, FailureCause::ConnectionClosed),
        (FaultScript::StallAfterBanner, FailureCause::TimedOut),
        (FaultScript::GarbageAfterBanner, FailureCause::NotSsh),
    ] {
        let server = FaultyServer::start(trap);
        let looks = if expected == FailureCause::TimedOut { &hasty } else { &patient };
        let looked = looks.collect(collect_request(&target(server.address(), "me", login()))).await;
        assert_eq!(cause(&looked), (CollectionStage::Handshake, expected), "{trap:?}: {looked:?}");
        for _ in 0..100 {
            if server.open_connections() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(server.open_connections(), 0, "{trap:?}");
    }
    let closed = SocketAddr::from((local(99), 1));
    assert_eq!(
        cause(&patient.collect(collect_request(&target(closed, "me", login()))).await),
        (CollectionStage::Connect, FailureCause::Unreachable)
    );
    let unknown = SshTarget { address: "no-such-host.invalid".to_owned(), ..target(closed, "me", login()) };
    assert_eq!(
        cause(&patient.collect(collect_request(&unknown)).await),
        (CollectionStage::Resolve, FailureCause::DnsFailure)
    );
}

#[tokio::test]
async fn arbitrary_shell_output_is_handled() {
    let (patient, hasty) = (ssh_collector(), hasty());
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
        let looks = if expected == FailureCause::TimedOut { &hasty } else { &patient };
        let looked = looks.collect(collect_request(&by_key(&server, "ed25519"))).await;
        assert_eq!(cause(&looked), (stage, expected), "{command}: {looked:?}");
    }
}

/// What the agent's own collectors make of two captures.
fn by_agent(files: [&[u8]; 2]) -> Vec<(String, String, f64)> {
    let all = CollectorOptions { top_processes: usize::MAX, ..CollectorOptions::default() };
    let set = CollectorSet::new(&[], all.clone());
    let mut deriver = perfwatch_collect::Deriver::default();
    let mut derived = perfwatch_collect::Derived::default();
    for bytes in files {
        let capture = perfwatch_collect::Capture::parse(bytes).unwrap();
        let reading = read_all(&capture, &set, &mut CollectorCache::default(), &capture.clock());
        derived = deriver.derive(&reading, &all);
    }
    let there = derived.samples.into_iter().filter(|point| !point.value.is_nan());
    there
        .filter_map(|point| {
            let value =
                unscale(perfwatch_model::scale(point.value, point.metric.decimals), point.metric.decimals)?;
            Some((point.metric.name.to_owned(), point.instance.to_string(), value))
        })
        .collect()
}

/// The Debian host with 128 processors instead of two.
fn with_many_cores(capture: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(capture);
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("cpu1 ") {
            None => out.push_str(line),
            Some(rest) => (1..128).for_each(|core| out.push_str(&format!("cpu{core} {rest}"))),
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
    let looks = ssh_collector();
    for (name, files, last) in [
        ("debian", debian, 60),
        ("raspberry", pair("raspberry-pi"), 61),
        ("old", old, 62),
        ("many", many, 63),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (at, bytes) in files.iter().enumerate() {
            std::fs::write(folder.path().join(at.to_string()), bytes).unwrap();
        }
        // The first, and from then on the second.
        let here = folder.path().display();
        let command = format!(
            "ForceCommand if [ -e {here}/seen ]; then cat {here}/1; else touch {here}/seen; cat {here}/0; fi"
        );
        let server = Sshd::start(local(last), &[&command]);
        let seen = looks.collect(collect_request(&by_key(&server, "ed25519"))).await.result.unwrap();
        let expected = by_agent([&files[0], &files[1]]);
        assert!(expected.len() > 20, "{name}: {}", expected.len());
        for (metric, instance, value) in &expected {
            assert_eq!(
                seen.snapshot.value(metric, instance),
                Some(*value),
                "{name}: {metric} {{{instance}}}"
            );
        }
        assert_eq!(seen.snapshot.sample_count(), expected.len(), "{name}");
        if name == "many" {
            assert!(
                seen.snapshot.value("cpu.core.usage", "127").is_some(),
                "{:?}",
                seen.snapshot.shape.columns().iter().map(|c| &c.metric).take(20).collect::<Vec<_>>()
            );
        }
    }
}

fn handles() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_faulty_servers_leak_nothing() {
    let mut looks = hasty();
    let short = Duration::from_millis(400);
    looks.deadlines = StageTimeouts { handshake: short, ..looks.deadlines };
    let looks = Arc::new(looks);
    let traps = [
        FaultScript::Silent,
        FaultScript::SlowBanner,
        FaultScript::RandomBytes,
        FaultScript::EndlessBanner,
        FaultScript::Reset,
        FaultScript::StallAfterBanner,
        FaultScript::GarbageAfterBanner,
    ];
    let servers: Vec<FaultyServer> = traps.into_iter().map(FaultyServer::start).collect();
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (tasks, files) = (alive(), handles());
    let turns = Arc::new(tokio::sync::Semaphore::new(50));
    let mut all = tokio::task::JoinSet::new();
    for at in 0..1_000 {
        let (looks, turns) = (looks.clone(), turns.clone());
        let target = target(servers[at % servers.len()].address(), "me", SshAuth::Password("secret".into()));
        all.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            looks.collect(collect_request(&target)).await.result.is_err()
        });
    }
    assert!(all.join_all().await.into_iter().all(|failed| failed));
    for _ in 0..200 {
        if servers.iter().all(|server| server.open_connections() == 0)
            && alive() <= tasks
            && handles() <= files
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(servers.iter().all(|server| server.open_connections() == 0));
    assert!(alive() <= tasks && handles() <= files, "{} tasks, {} files", alive(), handles());
    assert_eq!((looks.open_connections(), looks.slot_count()), (0, 0));
    // Those of the runtime, of the servers here, and of other tests.
    assert!(threads() < 100, "{}", threads());
}

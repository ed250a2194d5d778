//! Against OpenSSH's own server, and against some that only look like one.

use crate::Looks;
use crate::way::Deadlines;
use perfwatch_collect::{CollectorSet, LocalRoot, Options, Recall, read_all};
use perfwatch_model::remote::{Ask, Cause, Login, Looked, RemoteCollector as _, Stage, Target};
use perfwatch_model::{SystemClock, unscale};
use perfwatch_testkit::sshd::{Hostile, PASSWORD, Sshd, Trap, USER, make_key};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

fn looks() -> Looks {
    Looks::new(Arc::new(SystemClock::new()))
}

/// For those that never answer.
fn hasty() -> Looks {
    let mut looks = looks();
    let short = Duration::from_secs(2);
    looks.deadlines = Deadlines { handshake: short, login: short, shell: short, ..Deadlines::default() };
    looks
}

fn target(place: SocketAddr, user: &str, login: Login) -> Target {
    let (address, port) = (place.ip().to_string(), place.port());
    Target { server: Uuid::now_v7(), address, port, user: user.to_owned(), login, pin: None, jump: None }
}

fn by_key(server: &Sshd, kind: &str) -> Target {
    let login = Login::Key { key: server.key(kind).into(), passphrase: None };
    target(server.place(), &me(), login)
}

fn me() -> String {
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string())).unwrap();
    line.split(':').next().unwrap().to_owned()
}

fn ask(target: &Target) -> Ask {
    let hour = Duration::from_secs(3_600);
    Ask {
        target: target.clone(),
        carried: None,
        fresh: hour,
        interval: Duration::from_secs(60),
        hold: Duration::ZERO,
        anew: false,
    }
}

/// Long enough for rates.
const AFTER: Duration = Duration::from_millis(2_100);

fn local(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 7, last)
}

fn cause(looked: &Looked) -> (Stage, Cause) {
    let failure = looked.result.as_ref().expect_err("should have failed");
    (failure.stage, failure.cause)
}

#[tokio::test]
async fn this_machine_is_seen_as_by_its_agent() {
    let server = Sshd::start(local(1), &["MaxSessions 1"]);
    let looks = looks();
    let target = by_key(&server, "ed25519");
    let looked = looks.look(ask(&target)).await;
    let seen = looked.result.unwrap();
    let names: Vec<Stage> = looked.steps.iter().map(|step| step.name).collect();
    use Stage::{Connect, Handshake, Read, Resolve, Shell};
    assert_eq!(names, [Resolve, Connect, Handshake, Stage::Login, Shell, Read, Read]);
    assert!(looked.keys[0].1.starts_with("ssh-ed25519 SHA256:"), "{:?}", looked.keys);
    // What does not move is equal; what moves is there.
    let root = LocalRoot::new(Path::new("/proc"), Path::new("/sys"), Path::new("/"));
    let clock = SystemClock::new();
    let set = CollectorSet::new(&[], Options { top: usize::MAX, ..Options::default() });
    let mut deriver = perfwatch_collect::Deriver::default();
    deriver.derive(&read_all(&root, &set, &mut Recall::default(), &clock), &Options::default());
    std::thread::sleep(Duration::from_millis(200));
    let own = deriver.derive(&read_all(&root, &set, &mut Recall::default(), &clock), &Options::default());
    let there = |metric: &str, instance: &str| seen.snapshot.value(metric, instance);
    let still = [
        "memory.total",
        "swap.total",
        "filesystem.size",
        "cpu.cores",
        "handles.limit",
        "network.speed",
        "filesystem.read_only",
    ];
    for point in own.points.iter().filter(|point| !point.value.is_nan()) {
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
    let again = self::looks().look(Ask { carried: Some(seen.carried.clone()), ..ask(&target) }).await;
    assert_eq!(again.steps.iter().filter(|step| step.name == Read).count(), 1);
    assert!(again.result.unwrap().snapshot.value("cpu.usage", "").is_some());
    // Carried from too long ago, or garbled: as if there were none.
    for (carried, fresh) in [(seen.carried, Duration::ZERO), (b"garbage".to_vec(), Duration::from_secs(60))] {
        let again = looks.look(Ask { carried: Some(carried), fresh, ..ask(&target) }).await;
        assert_eq!(again.steps.iter().filter(|step| step.name == Read).count(), 2, "{again:?}");
        assert!(again.result.unwrap().snapshot.value("cpu.usage", "").is_some());
    }
}

#[tokio::test]
async fn one_connection_is_held_and_used_again() {
    let server = Sshd::start(local(2), &["MaxSessions 1"]);
    let looks = looks();
    let target = by_key(&server, "ed25519");
    let held = |carried| Ask { hold: Duration::from_secs(4), carried, ..ask(&target) };
    let mut carried = looks.look(held(None)).await.result.unwrap().carried;
    for _ in 0..2 {
        tokio::time::sleep(AFTER).await;
        let looked = looks.look(held(Some(carried))).await;
        assert_eq!(looked.steps.len(), 1, "{:?}", looked.steps);
        carried = looked.result.unwrap().carried;
    }
    assert_eq!((looks.held(), server.log().matches("Accepted publickey").count()), (1, 1));
    // With other credentials it is not the same one.
    let other = by_key(&server, "ecdsa");
    let other = Target { server: target.server, ..other };
    let looked = looks.look(Ask { target: other, ..held(Some(carried.clone())) }).await;
    assert!(looked.steps.len() > 1 && looked.result.is_ok());
    assert_eq!(looks.held(), 1);
    // Let go of when nobody needed it.
    for _ in 0..100 {
        if looks.held() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(looks.held(), 0);
    // One that is gone is made again without a word.
    looks.look(held(Some(carried.clone()))).await.result.unwrap();
    server.cut();
    let looked = looks.look(held(Some(carried))).await;
    assert!(looked.result.is_ok(), "{looked:?}");
    looks.release(target.server);
    assert_eq!(looks.held(), 0);
}

#[tokio::test]
async fn as_the_only_command_in_busybox() {
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
    let (looks, target) = (looks(), by_key(&server, "ed25519"));
    let hold = Duration::from_secs(5);
    let seen = looks.look(Ask { hold, ..ask(&target) }).await.result.unwrap();
    tokio::time::sleep(AFTER).await;
    let again = looks.look(Ask { hold, carried: Some(seen.carried.clone()), ..ask(&target) }).await;
    assert_eq!(again.steps.len(), 1);
    let snapshot = again.result.unwrap().snapshot;
    assert!(snapshot.errors.is_empty(), "{:?}", snapshot.errors);
    for metric in ["cpu.usage", "memory.used_percent", "load.1m", "processes.total", "system.uptime"] {
        assert!(snapshot.value(metric, "").is_some(), "{metric}");
    }
    assert!(snapshot.value("filesystem.used_percent", "/").is_some());
    assert!(snapshot.processes.iter().any(|row| !row.user.is_empty() && row.handles.is_some()));
}

#[tokio::test]
async fn keys_of_all_kinds_locked_ones_and_wrong_ones() {
    let server = Sshd::start(local(3), &["ForceCommand cat /proc/loadavg; exit 7"]);
    let looks = looks();
    let with = |key: String, passphrase: Option<&str>| {
        let login = Login::Key { key: key.into(), passphrase: passphrase.map(Into::into) };
        target(server.place(), &me(), login)
    };
    // Let in, and then told off by the command.
    for kind in ["ed25519", "rsa", "ecdsa"] {
        let looked = looks.look(ask(&with(server.key(kind), None))).await;
        assert_eq!(cause(&looked), (Stage::Shell, Cause::CommandFailed), "{kind}");
        assert!(looked.result.unwrap_err().message.contains("ended with 7"));
    }
    let locked = make_key(server.folder(), "ed25519", "open sesame");
    server.allow(&locked);
    let locked = std::fs::read_to_string(locked).unwrap();
    let looked = looks.look(ask(&with(locked.clone(), Some("open sesame")))).await;
    assert_eq!(cause(&looked), (Stage::Shell, Cause::CommandFailed));
    for (key, passphrase, word) in [
        (locked.clone(), None, "locked"),
        (locked, Some("wrong"), "passphrase"),
        ("no key at all".to_owned(), None, "no private key"),
    ] {
        let looked = looks.look(ask(&with(key, passphrase))).await;
        assert_eq!(cause(&looked), (Stage::Login, Cause::UnusableKey));
        assert!(looked.result.unwrap_err().message.contains(word), "{word}");
    }
    let folder = tempfile::tempdir().unwrap();
    let stranger = std::fs::read_to_string(make_key(folder.path(), "ed25519", "")).unwrap();
    assert_eq!(cause(&looks.look(ask(&with(stranger, None))).await), (Stage::Login, Cause::LoginRefused));
}

#[tokio::test]
async fn a_wrong_password_is_said_once() {
    if me() != "root" {
        eprintln!("skipped: servers with passwords need root");
        return;
    }
    let server = Sshd::start_with_passwords(local(4), &[]);
    let looks = looks();
    let with = |password: &str| target(server.place(), USER, Login::Password(password.into()));
    let looked = looks.look(ask(&with(PASSWORD))).await;
    assert!(looked.result.is_ok(), "{looked:?}");
    let looked = looks.look(ask(&with("wrong"))).await;
    assert_eq!(cause(&looked), (Stage::Login, Cause::LoginRefused));
    assert!(cause(&looked).1.is_final());
    assert_eq!(server.log().matches("Failed password").count(), 1, "{}", server.log());
    // A server that knows keys alone is told no password.
    let server = Sshd::start(local(5), &[]);
    let looked = looks.look(ask(&target(server.place(), USER, Login::Password(PASSWORD.into())))).await;
    assert_eq!(cause(&looked), (Stage::Login, Cause::LoginRefused));
    assert!(looked.result.unwrap_err().message.contains("publickey"));
}

/// Tells when it hears a password, and says nothing to it.
struct Hears(Arc<tokio::sync::Notify>);

impl russh::server::Handler for Hears {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<russh::server::Auth, Self::Error> {
        self.0.notify_one();
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_connection_that_breaks_at_the_password_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let key = russh::keys::load_secret_key(make_key(folder.path(), "ed25519", ""), None).unwrap();
    let config = Arc::new(russh::server::Config { keys: vec![key], ..Default::default() });
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let place = listener.local_addr().unwrap();
    let heard = Arc::new(tokio::sync::Notify::new());
    let hears = Hears(heard.clone());
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
    let looked = looks().look(ask(&target(place, USER, Login::Password(PASSWORD.into())))).await;
    assert_eq!(cause(&looked), (Stage::Login, Cause::Closed), "{looked:?}");
    assert!(!cause(&looked).1.is_final());
}

#[tokio::test]
async fn a_changed_host_key_is_told_nothing() {
    let mut server = Sshd::start(local(6), &[]);
    let looks = looks();
    let target = by_key(&server, "ed25519");
    let pin = looks.look(ask(&target)).await.keys.remove(0).1;
    let pinned = Target { pin: Some(pin.clone()), ..target };
    assert!(looks.look(ask(&pinned)).await.result.is_ok());
    let logins = server.log().matches("Accepted").count();
    server.change_host_key();
    let looked = looks.look(ask(&pinned)).await;
    assert_eq!(cause(&looked), (Stage::Handshake, Cause::HostKeyChanged));
    let failure = looked.result.unwrap_err();
    assert!(failure.message.contains(&pin) && failure.shown_key.is_some_and(|key| key != pin));
    assert!(looked.keys.is_empty());
    assert_eq!(server.log().matches("Accepted").count(), logins);
}

#[tokio::test]
async fn through_another_host() {
    let (near, far) = (Sshd::start(local(8), &[]), Sshd::start(local(9), &[]));
    let looks = looks();
    let jump = by_key(&near, "rsa");
    let target = Target { jump: Some(Box::new(jump.clone())), ..by_key(&far, "ed25519") };
    let looked = looks.look(ask(&target)).await;
    assert!(looked.result.is_ok(), "{looked:?}");
    let shown: Vec<Uuid> = looked.keys.iter().map(|(server, _)| *server).collect();
    assert_eq!(shown, [jump.server, target.server]);
    // What lies behind it does not answer, or it is itself the trouble: each is said.
    let nobody = Target { port: 1, ..target.clone() };
    assert_eq!(cause(&looks.look(ask(&nobody)).await), (Stage::Connect, Cause::Unreachable));
    let shut = Target { user: "nobody-here".to_owned(), ..jump };
    let looked = looks.look(ask(&Target { jump: Some(Box::new(shut)), ..target })).await;
    assert_eq!(cause(&looked), (Stage::Login, Cause::LoginRefused));
    assert!(looked.result.unwrap_err().message.starts_with("on the way, at 127.0.7.8"));
}

#[tokio::test]
async fn what_answers_may_be_anybody() {
    let (patient, hasty) = (looks(), hasty());
    let login = || Login::Password("secret".into());
    for (trap, expected) in [
        (Trap::Silent, Cause::TimedOut),
        (Trap::Slow, Cause::TimedOut),
        (Trap::Noise, Cause::NoSsh),
        (Trap::Endless, Cause::NoSsh),
        (Trap::Reset, Cause::Closed),
        (Trap::Frozen, Cause::TimedOut),
        (Trap::Broken, Cause::NoSsh),
    ] {
        let server = Hostile::start(trap);
        let looks = if expected == Cause::TimedOut { &hasty } else { &patient };
        let looked = looks.look(ask(&target(server.place(), "me", login()))).await;
        assert_eq!(cause(&looked), (Stage::Handshake, expected), "{trap:?}: {looked:?}");
        for _ in 0..100 {
            if server.open() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(server.open(), 0, "{trap:?}");
    }
    let closed = SocketAddr::from((local(99), 1));
    assert_eq!(
        cause(&patient.look(ask(&target(closed, "me", login()))).await),
        (Stage::Connect, Cause::Unreachable)
    );
    let unknown = Target { address: "no-such-host.invalid".to_owned(), ..target(closed, "me", login()) };
    assert_eq!(cause(&patient.look(ask(&unknown)).await), (Stage::Resolve, Cause::UnknownName));
}

#[tokio::test]
async fn what_a_shell_says_may_be_anything() {
    let (patient, hasty) = (looks(), hasty());
    for (command, stage, expected) in [
        ("yes", Stage::Shell, Cause::TooMuch),
        ("echo === /a; yes", Stage::Read, Cause::TooMuch),
        ("true", Stage::Shell, Cause::CommandFailed),
        ("echo no entry >&2; exit 7", Stage::Shell, Cause::CommandFailed),
        ("kill -9 $PPID", Stage::Shell, Cause::Closed),
        ("head -c 100000 /dev/urandom", Stage::Shell, Cause::TooMuch),
        ("echo === /etc/hostname; echo a; echo b; echo c", Stage::Read, Cause::Garbled),
        ("sleep 30", Stage::Shell, Cause::TimedOut),
    ] {
        let server = Sshd::start(local(20), &[&format!("ForceCommand {command}")]);
        let looks = if expected == Cause::TimedOut { &hasty } else { &patient };
        let looked = looks.look(ask(&by_key(&server, "ed25519"))).await;
        assert_eq!(cause(&looked), (stage, expected), "{command}: {looked:?}");
    }
}

/// What the agent's own collectors make of two captures.
fn by_agent(files: [&[u8]; 2]) -> Vec<(String, String, f64)> {
    let all = Options { top: usize::MAX, ..Options::default() };
    let set = CollectorSet::new(&[], all.clone());
    let mut deriver = perfwatch_collect::Deriver::default();
    let mut derived = perfwatch_collect::Derived::default();
    for bytes in files {
        let capture = perfwatch_collect::Capture::parse(bytes).unwrap();
        let reading = read_all(&capture, &set, &mut Recall::default(), &capture.clock());
        derived = deriver.derive(&reading, &all);
    }
    let there = derived.points.into_iter().filter(|point| !point.value.is_nan());
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
async fn other_systems_are_read_as_their_agents_read_them() {
    let hosts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perfwatch-collect/fixtures/hosts");
    let read = |name: &str| std::fs::read(hosts.join(format!("{name}.capture"))).unwrap();
    let pair = |name: &str| [read(&format!("{name}.1")), read(&format!("{name}.2"))];
    let debian = pair("debian12-vm");
    let many = [with_many_cores(&debian[0]), with_many_cores(&debian[1])];
    let old = [read("kernel-2.6"), read("kernel-2.6")];
    let looks = looks();
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
        let seen = looks.look(ask(&by_key(&server, "ed25519"))).await.result.unwrap();
        let expected = by_agent([&files[0], &files[1]]);
        assert!(expected.len() > 20, "{name}: {}", expected.len());
        for (metric, instance, value) in &expected {
            assert_eq!(
                seen.snapshot.value(metric, instance),
                Some(*value),
                "{name}: {metric} {{{instance}}}"
            );
        }
        assert_eq!(seen.snapshot.samples(), expected.len(), "{name}");
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
async fn a_thousand_hostile_servers_leave_nothing_behind() {
    let mut looks = hasty();
    let short = Duration::from_millis(400);
    looks.deadlines = Deadlines { handshake: short, ..looks.deadlines };
    let looks = Arc::new(looks);
    let traps =
        [Trap::Silent, Trap::Slow, Trap::Noise, Trap::Endless, Trap::Reset, Trap::Frozen, Trap::Broken];
    let servers: Vec<Hostile> = traps.into_iter().map(Hostile::start).collect();
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (tasks, files) = (alive(), handles());
    let turns = Arc::new(tokio::sync::Semaphore::new(50));
    let mut all = tokio::task::JoinSet::new();
    for at in 0..1_000 {
        let (looks, turns) = (looks.clone(), turns.clone());
        let target = target(servers[at % servers.len()].place(), "me", Login::Password("secret".into()));
        all.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            looks.look(ask(&target)).await.result.is_err()
        });
    }
    assert!(all.join_all().await.into_iter().all(|failed| failed));
    for _ in 0..200 {
        if servers.iter().all(|server| server.open() == 0) && alive() <= tasks && handles() <= files {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(servers.iter().all(|server| server.open() == 0));
    assert!(alive() <= tasks && handles() <= files, "{} tasks, {} files", alive(), handles());
    assert_eq!((looks.held(), looks.places()), (0, 0));
    // Those of the runtime, of the servers here, and of other tests.
    assert!(threads() < 100, "{}", threads());
}

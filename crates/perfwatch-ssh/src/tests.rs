//! Tests against OpenSSH's server and against faulty servers.

mod authentication;
mod faults;

use crate::SshCollector;
use perfwatch_collect::{
    Capture, CollectorCache, CollectorOptions, CollectorSet, Derived, Deriver, LocalRoot, read_all,
};
use perfwatch_model::remote_collector::{
    CollectRequest, CollectionOutcome, CollectionStage, FailureCause, RemoteCollector as _, SshAuth,
    SshTarget,
};
use perfwatch_model::{SystemClock, unscale};
use perfwatch_testkit::sshd::Sshd;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

fn ssh_collector() -> SshCollector {
    SshCollector::new(Arc::new(SystemClock::new()))
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
        observer: None,
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

/// Values that an agent on this host derives now.
fn local_agent_values() -> Derived {
    let root = LocalRoot::new(Path::new("/proc"), Path::new("/sys"), Path::new("/"));
    let clock = SystemClock::new();
    let options = CollectorOptions { top_processes: usize::MAX, ..CollectorOptions::default() };
    let set = CollectorSet::new(&[], options);
    let read = || read_all(&root, &set, &mut CollectorCache::default(), &clock);
    let mut deriver = Deriver::default();
    deriver.derive(&read(), &CollectorOptions::default());
    std::thread::sleep(Duration::from_millis(200));
    deriver.derive(&read(), &CollectorOptions::default())
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
    let expected = local_agent_values();
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

/// Values that the agent derives from two captures.
fn agent_values(files: [&[u8]; 2]) -> Vec<(String, String, f64)> {
    let options = CollectorOptions { top_processes: usize::MAX, ..CollectorOptions::default() };
    let set = CollectorSet::new(&[], options.clone());
    let mut deriver = Deriver::default();
    let mut derived = Derived::default();
    for bytes in files {
        let capture = Capture::parse(bytes).unwrap();
        let reading = read_all(&capture, &set, &mut CollectorCache::default(), &capture.clock());
        derived = deriver.derive(&reading, &options);
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
        let samples = collected.snapshot.sample_count() - perfwatch_collect::SNAPSHOT_METRICS.len();
        assert_eq!(samples, expected.len(), "{name}");
        if name == "many" {
            assert!(
                collected.snapshot.value("cpu.core.usage", "127").is_some(),
                "{:?}",
                collected.snapshot.shape.columns().iter().map(|c| &c.metric).take(20).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn probe_prints_the_processor_lines_of_cpuinfo() {
    let lines = crate::PROBE.lines().filter(|line| line.starts_with("pw_cpuinfo="));
    let keys = lines.flat_map(|line| line.split(['|', '\'', '"', '='])).collect::<Vec<_>>();
    for key in perfwatch_collect::CPUINFO_KEYS {
        assert!(keys.contains(key), "{key}");
    }
}

//! Tests against faulty servers: failure causes, timeouts and leaks.

use super::{cause, collect_request, local, ssh_collector, target, target_with_key};
use crate::SshCollector;
use crate::connect_trace::StageTimeouts;
use perfwatch_model::remote_collector::{
    CollectionStage, FailureCause, RemoteCollector as _, SshAuth, SshTarget,
};
use perfwatch_testkit::sshd::{FaultScript, FaultyServer, Sshd};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Collector for servers that never respond.
fn short_timeouts() -> SshCollector {
    let mut collector = ssh_collector();
    let short = Duration::from_secs(2);
    collector.timeouts =
        StageTimeouts { handshake: short, authenticate: short, shell: short, ..StageTimeouts::default() };
    collector
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
    let mut collections = tokio::task::JoinSet::new();
    for index in 0..1_000 {
        let (collector, permits) = (collector.clone(), permits.clone());
        let target =
            target(servers[index % servers.len()].address(), "me", SshAuth::Password("secret".into()));
        collections.spawn(async move {
            let _permit = permits.acquire().await.unwrap();
            collector.collect(collect_request(&target)).await.result.is_err()
        });
    }
    assert!(collections.join_all().await.into_iter().all(|failed| failed));
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

//! Hostile clients: an agent, a viewer and an operator that do everything at once which once harmed a hub,
//! beside an honest fleet with viewers. Prints the losses of honest clients, the responses to hostile
//! clients, and the health of the hub.
//!
//! The hub and the hostile clients are processes of their own. Requests go to this machine only.

mod agent;
mod attack;
mod honest;
mod operator;
mod viewer;

use crate::health::{Health, Peak, lock};
use crate::hub_process::HubProcess;
use crate::store::Scratch;
use crate::tiny::shorten;
use anyhow::Context as _;
use attack::Attacker;
use honest::{HonestAgents, HonestViewers};
use perfwatch_model::{Clock, SystemClock};
use serde_json::json;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time of honest load before the attack: the recent window is full, and the memory at its end is the idle size.
const WARM_UP: Duration = Duration::from_secs(320);
/// Time after the attack in which honest agents send what was refused.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// Seconds after the attack in which open hostile requests end.
const ATTACK_END_S: u64 = 25;
/// Longest time to wait for the end of the hub.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Disk budget in which the history of the honest hosts fits several times.
const DISK_BUDGET: &str = "256MB";

/// Runs the hostile senders for `seconds` beside `hosts` agents and `viewers` WebSocket clients: all attacks, those
/// whose names contain `only`, or one after the other for `each`.
pub(crate) fn run(seconds: u64, hosts: u64, viewers: u64, only: &str) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let scratch = Scratch::new("hostile")?;
    let mut hub = HubProcess::start(&scratch.0, &[("PERFWATCH_HUB_DISK_BUDGET", DISK_BUDGET)])?;
    let admin = hub.create_user("root-admin", "admin")?;
    let mallory =
        [hub.create_user("mallory-viewer", "viewer")?, hub.create_user("mallory-operator", "operator")?];
    let agents = HonestAgents::enroll(&hub, &admin, hosts)?;
    let names: Vec<String> = agents.names();
    let enrollment = hub.enrollment_token(&admin, 1)?;
    let secret = hub.enroll(&admin, &enrollment, agent::HOST_ID, agent::HOST_NAME)?;
    let credentials = (secret, enrollment);
    println!("{hosts} honest agents at 1/s, {viewers} honest viewers; attack of {seconds} s");
    let (health, stop) = (Health::default(), AtomicBool::new(false));
    let watching = HonestViewers::connect(&hub.address, &admin, viewers)?;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        scope.spawn(|| health.probe(&hub, &*clock, PROBE_INTERVAL, &stop));
        let sending = scope.spawn(|| agents.send_until(&hub.url, &*clock, &stop));
        std::thread::sleep(shorten(WARM_UP));
        let idle_mb = hub.resident_mb()?;
        health.print("before");
        let (mut status, mut max) = (Ok(()), Peak::default());
        for (only, exact) in rounds(only) {
            health.reset(clock.monotonic());
            let result = attack_process(&hub, &credentials, &mallory, &names, (seconds, only, exact));
            status = status.and(result);
            let peak = health.peak_mb();
            if exact {
                println!("  {only}: maximum {:.0} MB (second {})", peak.value, peak.at_s);
            }
            max.add(peak.value, peak.at_s);
        }
        health.print("under attack");
        println!("  memory: idle {idle_mb:.0} MB, maximum {:.0} MB (second {})", max.value, max.at_s);
        let drained = clock.monotonic() + shorten(DRAIN_TIMEOUT);
        while agents.backlog() > 1 && clock.monotonic() < drained && hub.is_running() {
            std::thread::sleep(Duration::from_secs(1));
        }
        stop.store(true, Ordering::Relaxed);
        let _ = sending.join();
        status
    })?;
    agents.report(&hub, &admin);
    watching.report(agents.accepted(), viewers);
    match hub.stop(STOP_TIMEOUT, &*clock)? {
        Some(elapsed) => println!("  ended {:.1} s after SIGTERM", elapsed.as_secs_f64()),
        None => println!("  NOT ended {} s after SIGTERM", STOP_TIMEOUT.as_secs()),
    }
    Ok(())
}

/// Attacks of all senders.
fn attacks() -> impl Iterator<Item = &'static attack::Attack> {
    agent::ATTACKS.iter().chain(viewer::ATTACKS).chain(operator::ATTACKS)
}

/// Rounds of attacks: the attacks whose names contain a text at once, or each alone for `each`.
fn rounds(only: &str) -> Vec<(&str, bool)> {
    match only {
        "each" => attacks().map(|(name, _)| (*name, true)).collect(),
        _ => vec![(only, false)],
    }
}

/// Runs the hostile senders in a process with a lower priority: elsewhere they have their own processors.
fn attack_process(
    hub: &HubProcess,
    (secret, enrollment): &(String, String),
    [viewer, operator]: &[String; 2],
    names: &[String],
    (seconds, only, exact): (u64, &str, bool),
) -> anyhow::Result<()> {
    let config = json!({ "url": hub.url, "address": hub.address, "agent": secret, "enrollment": enrollment,
        "viewer": viewer, "operator": operator, "names": names, "seconds": seconds, "only": only, "exact": exact });
    let mut child = Command::new("nice")
        .args(["-n", "10"])
        .arg(std::env::current_exe()?)
        .arg("hostile-attack")
        .env("BENCH_ATTACK", config.to_string())
        .stdin(Stdio::null())
        .spawn()?;
    // Requests have timeouts; a thread that hangs in spite of them ends with its process.
    for _ in 0..seconds + 60 {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    child.kill()?;
    child.wait().context("attack")?;
    println!("  the attack did not end in time");
    Ok(())
}

/// Process of the hostile senders, configured by the environment.
pub(crate) fn attack() -> anyhow::Result<()> {
    let config: serde_json::Value = serde_json::from_str(&std::env::var("BENCH_ATTACK")?)?;
    let attacker = Arc::new(Attacker::new(&config)?);
    let only = config["only"].as_str().unwrap_or_default();
    let is_exact = config["exact"].as_bool().unwrap_or_default();
    let attacks = attacks().filter(|(name, _)| if is_exact { *name == only } else { name.contains(only) });
    let spawn = |(name, function): &'static attack::Attack| {
        let attacker = attacker.clone();
        std::thread::spawn(move || function(&attacker, name))
    };
    let threads: Vec<_> = attacks.map(spawn).collect();
    while !attacker.is_over() {
        std::thread::sleep(Duration::from_millis(100));
    }
    // A thread whose request hangs ends with the process.
    for _ in 0..shorten(Duration::from_secs(ATTACK_END_S)).as_secs() {
        if threads.iter().all(std::thread::JoinHandle::is_finished) {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    attacker.print();
    Ok(())
}

//! Faults in an installation of several hubs: agents and viewers reach hubs on one PostgreSQL and one Redis
//! through a TCP balancer, while hubs, servers and links fail. Faults, values and pauses are derived from a
//! seed.
//!
//! Unlike the benchmarks, the program checks: every acknowledged snapshot is in the history once, each breach
//! of a threshold is one incident with its notifications, and viewers have new data within 5 s after a fault.
//! It fails otherwise.

mod agents;
mod balancer;
mod breaches;
mod checks;
mod faults;
mod installation;
mod links;
mod schedule;
mod viewers;
mod webhook;

use crate::health::lock;
use crate::store::Scratch;
use crate::tiny::is_tiny;
use agents::{Agent, Sending};
use anyhow::Context as _;
use checks::Report;
use fastrand::Rng;
use installation::Installation;
use perfwatch_agent::HubClient;
use perfwatch_model::{Clock as _, SystemClock};
use schedule::AppliedFault;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Runtime;
use viewers::Viewers;
use webhook::Webhook;

/// Time after the last fault until the agents stop: that in which viewers are checked, and a second.
const LAST_RECOVERY_TIME: Duration = Duration::from_secs(11);
/// Longest time until everything is acknowledged: a request of the agent ends after 20 s, and a pause after
/// 10 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time until the last incident is resolved and notified.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time in which notifications that are sent twice arrive.
const REPEAT_TIME: Duration = Duration::from_secs(3);
/// Time after the last breach in which its host sends a value that is no breach.
const CLEAR_TIME: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Longest delay of a response of the receiver of notifications.
const MAX_RESPONSE_DELAY_MS: u64 = 300;

/// Size of a run.
struct Options {
    seeds: Vec<u64>,
    agents: usize,
    viewers: usize,
    hubs: usize,
    /// Time in which faults start.
    time: Duration,
}

impl Options {
    /// Seeds as `3` or `1..20`, both ends included; sizes as `agents=30`.
    fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let time = Duration::from_secs(45);
        let mut options = Self { seeds: Vec::new(), agents: 30, viewers: 10, hubs: 3, time };
        for argument in arguments {
            let invalid =
                || format!("invalid argument {argument:?}; expected SEED, FIRST..LAST or NAME=NUMBER");
            if let Some((name, number)) = argument.split_once('=') {
                let number: usize = number.parse().with_context(invalid)?;
                match name {
                    "agents" => options.agents = number,
                    "viewers" => options.viewers = number,
                    "hubs" => options.hubs = number,
                    "seconds" => options.time = Duration::from_secs(number as u64),
                    _ => anyhow::bail!(invalid()),
                }
            } else if let Some((first, last)) = argument.split_once("..") {
                let (first, last): (u64, u64) =
                    (first.parse().with_context(invalid)?, last.parse().with_context(invalid)?);
                options.seeds.extend(first..=last);
            } else {
                options.seeds.push(argument.parse().with_context(invalid)?);
            }
        }
        if options.seeds.is_empty() {
            options.seeds.extend(1..=20);
        }
        anyhow::ensure!(options.hubs > 0 && options.agents > 0, "at least one hub and one agent");
        Ok(options)
    }
}

/// Runs each seed; fails if an invariant is broken in one of them.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let options = Options::parse(arguments)?;
    let clock = SystemClock::new();
    let mut broken = Vec::new();
    for seed in &options.seeds {
        let started = clock.monotonic();
        println!(
            "seed {seed}: {} agents, {} viewers, {} hubs, faults for {} s",
            options.agents,
            options.viewers,
            options.hubs,
            options.time.as_secs()
        );
        let mut scratch = Scratch::new(&format!("fleet-{seed}"))?;
        let report =
            run_seed(&options, *seed, &scratch, clock).unwrap_or_else(|error| Report::of_error(&error));
        report.print();
        if !report.broken.is_empty() {
            println!("  logs of the hubs: {}", scratch.preserve().display());
            broken.push(seed);
        }
        println!("  {:.0} s", clock.monotonic().saturating_sub(started).as_secs_f64());
    }
    println!(
        "{} of {} seeds without broken invariants",
        options.seeds.len() - broken.len(),
        options.seeds.len()
    );
    anyhow::ensure!(broken.is_empty(), "broken invariants with the seeds {broken:?}");
    Ok(())
}

/// Everything that takes part in a run.
struct Run<'a> {
    installation: &'a mut Installation,
    agents: &'a mut Vec<Agent>,
    webhook: &'a Webhook,
    clock: SystemClock,
}

fn run_seed(options: &Options, seed: u64, scratch: &Scratch, clock: SystemClock) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rng = Rng::with_seed(seed);
    let plan = faults::plan(&mut rng, options.time);
    let closes_connections = rng.bool();
    let response_delay = Duration::from_millis(rng.u64(..MAX_RESPONSE_DELAY_MS));
    let mut installation = Installation::start(&runtime, &scratch.0, options.hubs, closes_connections)?;
    let webhook = runtime.block_on(Webhook::start(clock, response_delay))?;
    installation.set_up_alerting(&breaches::rules(), &webhook.url)?;
    let first = installation.hub(0);
    let rest = (&mut rng, clock, options.time);
    let mut agents = Agent::enroll(first, &installation.admin, options.agents, rest)?;
    let viewers = start_viewers(&runtime, &installation, options.viewers, (clock, &mut rng))?;
    let connections = if closes_connections { "closes" } else { "keeps" };
    println!("  the balancer {connections} connections of a hub that is not ready");
    let started = clock.monotonic();
    let run = Run { installation: &mut installation, agents: &mut agents, webhook: &webhook, clock };
    let faults = run.send_during_faults(plan)?;
    for fault in &faults {
        let hub = fault.hub.map(|hub| format!(" (hub-{hub})")).unwrap_or_default();
        let at = |time: Duration| time.saturating_sub(started).as_secs_f64();
        println!("  {:5.1} to {:5.1} s: {}{hub}", at(fault.from), at(fault.to), fault.kind);
    }
    let mut report = Report::default();
    let run = Run { installation: &mut installation, agents: &mut agents, webhook: &webhook, clock };
    run.check(&mut report, &faults)?;
    checks::check_viewers(&mut report, &viewers.views(), &agents, &faults, !is_tiny());
    runtime.shutdown_background();
    Ok(report)
}

fn start_viewers(
    runtime: &Runtime,
    installation: &Installation,
    count: usize,
    rest: (SystemClock, &mut Rng),
) -> anyhow::Result<Viewers> {
    let _context = runtime.enter();
    Viewers::start(&installation.address, &installation.viewer, count, rest)
}

impl Run<'_> {
    /// Sends until all faults and breaches are over and everything is acknowledged.
    fn send_during_faults(self, plan: Vec<faults::PlannedFault>) -> anyhow::Result<Vec<AppliedFault>> {
        let (clock, url) = (self.clock, format!("http://{}", self.installation.address));
        let last_breach_ms =
            self.agents.iter().filter_map(|agent| Some(agent.breach?.to_ms)).max().unwrap_or_default();
        // Each agent has its own connection.
        let clients: Vec<HubClient> =
            self.agents.iter().map(|_| HubClient::new(&url, None)).collect::<Result<_, _>>()?;
        let sending = &Sending::new(clock);
        let faults = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .agents
                .iter_mut()
                .zip(&clients)
                .map(|(agent, client)| scope.spawn(move || agent.run(client, sending)))
                .collect();
            let faults = schedule::apply(self.installation, plan, clock);
            if faults.is_ok() {
                let breach = u64::try_from(last_breach_ms - clock.wall_ms()).unwrap_or_default();
                std::thread::sleep(LAST_RECOVERY_TIME.max(Duration::from_millis(breach) + CLEAR_TIME));
            }
            sending.is_ending.store(true, Ordering::Relaxed);
            let deadline = clock.monotonic() + DRAIN_TIMEOUT;
            while faults.is_ok()
                && clock.monotonic() < deadline
                && !threads.iter().all(std::thread::ScopedJoinHandle::is_finished)
            {
                std::thread::sleep(POLL_INTERVAL);
            }
            sending.is_abandoned.store(true, Ordering::Relaxed);
            faults
        });
        println!("  refused requests: {:?}", lock(&sending.refusals));
        faults
    }

    /// Checks alerts, and then the history.
    fn check(self, report: &mut Report, faults: &[AppliedFault]) -> anyhow::Result<()> {
        checks::check_acknowledged(report, self.agents);
        let deadline = self.clock.monotonic() + SETTLE_TIMEOUT;
        let is_settled = || -> anyhow::Result<bool> {
            let incidents = checks::incidents(self.installation)?;
            Ok(checks::is_settled(self.agents, &incidents, &self.webhook.deliveries()))
        };
        while !is_settled()? && self.clock.monotonic() < deadline {
            std::thread::sleep(POLL_INTERVAL);
        }
        std::thread::sleep(REPEAT_TIME);
        let incidents = checks::incidents(self.installation)?;
        let expected = checks::check_incidents(report, self.installation, self.agents, &incidents);
        checks::check_notifications(report, &expected, &self.webhook.deliveries(), faults);
        let hubs: Vec<HubClient> = (0..self.installation.hub_count())
            .map(|hub| HubClient::new(&self.installation.hub(hub).url, None))
            .collect::<Result<_, _>>()?;
        for agent in self.agents.iter_mut() {
            agent.send_sealing_rows(&hubs, self.clock).map_err(anyhow::Error::msg)?;
        }
        checks::check_history(report, self.installation, self.agents, self.clock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_seeds_and_sizes() {
        let parse = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            Options::parse(&arguments)
        };
        let options = parse(&["3", "7..9", "agents=5", "seconds=8"]).unwrap();
        assert_eq!((options.seeds, options.agents, options.hubs), (vec![3, 7, 8, 9], 5, 3));
        assert_eq!(options.time, Duration::from_secs(8));
        assert_eq!(parse(&[]).unwrap().seeds.len(), 20);
        assert!(parse(&["agents=x"]).is_err() && parse(&["other=1"]).is_err() && parse(&["hubs=0"]).is_err());
    }
}

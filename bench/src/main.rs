//! Benchmarks: `cargo run --profile quick -p perfwatch-bench -- NAME`. Results are printed, not
//! asserted, except by `fleet`.
//!
//! - `alerts`: evaluation of the rules of a large fleet; latency from snapshot to notification;
//!   backtest over a week.
//! - `collect`: duration and allocations of a collection, with 300 additional processes.
//! - `agent`: CPU usage and memory of the agent at 1 s and 2 s, compared with
//!   prometheus-node-exporter scraped at the same interval, in the same run.
//! - `live`: latency from post to receipt with 1,000 and 10,000 WebSocket clients; CPU time and memory of the hub.
//! - `load`: a fleet at its interval and viewers of its hosts: latencies, CPU time and memory of the hub.
//! - `rate-limits`: a thousand agents at their rate limit, and one agent at a hundred times its limit.
//! - `agentless`: agentless hosts collected once a minute over SSH: delay, and CPU time per 1,000
//!   collections.
//! - `ingest`: snapshots per second through HTTP, decoding and a durable commit.
//! - `history`: backfill of a fleet at maximum rate, on SQLite and PostgreSQL: rates, bytes per
//!   sample, query latency; compared with VictoriaMetrics and Prometheus with the same series.
//! - `explore`: queries of Explore, fleet replay and time range of the overview over 2,000 hosts with a day of
//!   history: duration, what is left out, memory, latency of `/healthz`.
//! - `hostile`: a hostile agent, viewer and operator beside an honest fleet: losses of the fleet,
//!   latency, memory and end of the hub.
//! - `fleet`: agents and viewers of several hubs behind a TCP balancer, with PostgreSQL and Redis, while hubs, servers and
//!   links fail by seed. Unlike the others it checks, and fails if data, an incident or a notification is lost or doubled,
//!   or viewers are without new data for long.
//! - `memory`: resident memory of a hub per host, with a full recent window.
//! - `budget`: a disk budget that is too small for its fleet: size on disk, retained time range.
//! - `top`: CPU usage of `perfwatch top` at 1 s on a small and a large screen, for this machine and for a host of a hub.
//! - `smoke`: all of them with minimal numbers, to show that they work; part of `make test`.

#![expect(clippy::print_stdout, reason = "the results are the output of the program")]

mod agent;
mod agentless;
mod alerts;
mod budget;
mod collect;
mod competitors;
mod counting_allocator;
mod explore;
mod fleet;
mod fleet_faults;
mod fleet_viewers;
mod health;
mod history;
mod hostile;
mod hub_process;
mod idle;
mod ingest;
mod live;
mod live_client;
mod load;
mod memory;
mod process;
mod rate_limits;
mod store;
mod tiny;
mod top;

use counting_allocator::CountingAllocator;

const USAGE: &str = "usage: perfwatch-bench alerts [HOSTS] [RULES] | collect [PROCESSES] | agent [SECONDS] | \
    live [CLIENTS] [TICKS] [INTERVAL_MS] | load [HOSTS] [VIEWERS] [SECONDS] [FLEET_VIEWERS] | ingest [SECONDS] | rate-limits [AGENTS] [SECONDS] | \
    agentless [SERVERS] [SECONDS] [WORKERS] | history [SECONDS] [BACKEND] | budget [SECONDS] [BACKEND] | \
    memory [HOSTS…] | idle [SECONDS] [PROGRAM] | explore [HOSTS] [HOURS] | top [SECONDS] | hostile [SECONDS] [HOSTS] [VIEWERS] [ATTACKS] | \
    fleet [SEED… | FIRST..LAST] [agents=N] [viewers=N] [hubs=N] [seconds=N] | smoke [NAMES]";

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| {
        arguments.get(index).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    match arguments.first().map(String::as_str) {
        Some("alerts") => alerts::run(number(1, 10_000), number(2, 20)),
        Some("collect") => collect::run(number(1, 300)),
        Some("agent") => agent::run(number(1, 60)),
        Some("live") => {
            let clients = arguments.get(1).and_then(|text| text.parse().ok());
            live::run(clients, number(2, 60), number(3, 200))
        }
        Some("live-clients") => live_client::clients(&arguments[1]),
        Some("load") => {
            let hosts = arguments.get(1).and_then(|text| text.parse().ok());
            load::run(hosts, usize::try_from(number(2, 50))?, number(3, 120), usize::try_from(number(4, 0))?)
        }
        Some("history") => history::run(number(1, 120), arguments.get(2).map(String::as_str)),
        Some("budget") => budget::run(number(1, 60), arguments.get(2).map(String::as_str)),
        Some("memory") => {
            let fleets: Vec<u64> = arguments[1..].iter().filter_map(|text| text.parse().ok()).collect();
            memory::run(if fleets.is_empty() { &[100, 1_000, 5_000] } else { &fleets })
        }
        Some("idle") => idle::run(number(1, 120), arguments.get(2).map(String::as_str)),
        Some("explore") => explore::run(number(1, 2_000), number(2, 24)),
        Some("fleet") => fleet_faults::run(&arguments[1..]),
        Some("top") => top::run(number(1, 60)),
        Some("rate-limits") => rate_limits::run(number(1, 1_000), number(2, 20)),
        Some("agentless") => agentless::run(number(1, 500), number(2, 180), number(3, 5)),
        Some("hostile") => {
            let only = arguments.get(4).map_or("", String::as_str);
            hostile::run(number(1, 300), number(2, 200), number(3, 20), only)
        }
        Some("hostile-attack") => hostile::attack(),
        Some("smoke") => tiny::smoke(&arguments[1..]),
        Some("ingest") => ingest::run(number(1, 20)),
        _ => anyhow::bail!(USAGE),
    }
}

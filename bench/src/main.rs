//! Figures, printed, never asserted: `cargo run --profile quick -p perfwatch-bench -- NAME`.
//!
//! - `alerts`: rules stepped for a large fleet; from a snapshot that fires until it was heard of; a
//!   back-test over a week.
//! - `collect`: time and allocations of one collection, with 300 more processes.
//! - `agent`: processor share and memory of the agent at 1 s and 2 s, beside
//!   prometheus-node-exporter scraped at the same pace, in the same run.
//! - `live`: 1,000 WebSocket clients; accept → receive.
//! - `limits`: a thousand agents at their limit beside one at a hundred times its own.
//! - `servers`: hosts without an agent once a minute over real SSH: in time? processor for 1,000 looks.
//! - `ingest`: snapshots a second through HTTP, decoding and a durable commit.
//! - `history`: a fleet's past as fast as it is taken, on SQLite and on PostgreSQL: rates, bytes a
//!   sample, times of questions; beside VictoriaMetrics and Prometheus with the same series.
//! - `budget`: a disk budget far too small for its fleet: sizes on disk, and what is kept.

#![expect(clippy::print_stdout, reason = "figures are what this program is for")]

mod agent;
mod agentless;
mod alerts;
mod budget;
mod collect;
mod competitors;
mod counting_allocator;
mod fleet;
mod history;
mod ingest;
mod live;
mod process;
mod rate_limits;
mod store;

#[global_allocator]
static ALLOCATOR: counting_allocator::Counting = counting_allocator::Counting;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |at: usize, default: u64| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    match arguments.first().map(String::as_str) {
        Some("alerts") => alerts::run(number(1, 10_000), number(2, 20)),
        Some("collect") => collect::run(number(1, 300)),
        Some("agent") => agent::run(number(1, 60)),
        Some("live") => live::run(number(1, 1_000), number(2, 60)),
        Some("live-clients") => live::clients(&arguments[1], number(2, 1_000), number(3, 60)),
        Some("history") => history::run(number(1, 120), arguments.get(2).map(String::as_str)),
        Some("budget") => budget::run(number(1, 60), arguments.get(2).map(String::as_str)),
        Some("limits") => rate_limits::run(number(1, 1_000), number(2, 20)),
        Some("servers") => agentless::run(number(1, 500), number(2, 180), number(3, 5)),
        Some("ingest") => ingest::run(number(1, 20)),
        _ => anyhow::bail!(
            "which? alerts [HOSTS] [RULES] | collect [PROCESSES] | agent [SECONDS] | live [CLIENTS] [TICKS] | ingest [SECONDS] | limits [AGENTS] [SECONDS] | servers [COUNT] [SECONDS] [WORKERS] | history [SECONDS] [WHO] | budget [SECONDS] [WHO]"
        ),
    }
}

//! Fairness: a thousand agents that send as often as they may, and one that sends a hundred times
//! as often. It should hold up itself, and nobody else.

use crate::fleet::{BenchHub, catalog};
use crate::process::percentiles;
use crate::store::Scratch;
use anyhow::Context as _;
use perfwatch::simulate::SimHost;
use perfwatch_hub::RateLimitConfig;
use perfwatch_model::wire::{self, Batch};
use perfwatch_model::{Clock, SystemClock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Requests a second of one agent.
const LIMIT: u32 = 1;
const SENDERS: u64 = 24;
const OVERLOAD_FACTOR: u32 = 100;

/// One agent with a secret of its own.
struct Agent {
    host: SimHost,
    bearer: String,
    told: bool,
}

impl Agent {
    fn send(&mut self, http: &ureq::Agent, url: &str, clock: &dyn Clock) -> anyhow::Result<u16> {
        loop {
            let tick = self.host.tick(clock.wall_ms(), 1_000);
            let batch = Batch {
                host_id: self.host.id.to_bytes().to_vec().into(),
                host_name: self.host.name.clone(),
                shapes: if self.told { Vec::new() } else { vec![wire::encode_shape(self.host.shape())] },
                snapshots: vec![wire::encode_snapshot(&tick)],
                sent_at_ms: clock.wall_ms(),
                facts: None,
            };
            self.told = true;
            let body = zstd::bulk::compress(&wire::encode_batch(&batch), 1)?;
            let request = http
                .post(format!("{url}/ingest/metrics"))
                .header("Authorization", &self.bearer)
                .header("Content-Type", wire::CONTENT_TYPE)
                .header("Content-Encoding", "zstd");
            let mut answer = request.send(&body[..])?;
            answer.body_mut().read_to_string()?;
            match answer.status().as_u16() {
                409 => self.told = false,
                status => return Ok(status),
            }
        }
    }
}

fn client() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().new_agent()
}

/// Lets as many in, as an administrator and their agents do.
fn enroll_agents(hub: &BenchHub<'_>, count: u64) -> anyhow::Result<Vec<Agent>> {
    let http = client();
    let ask = |path: &str, body: serde_json::Value| -> anyhow::Result<serde_json::Value> {
        let request = http.post(format!("{}{path}", hub.url)).header("Authorization", hub.bearer());
        let mut answer = request.content_type("application/json").send(body.to_string())?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    };
    let made = ask("/api/v1/enrollment-tokens", serde_json::json!({ "name": "bench", "uses": count }))?;
    let token = made["token"].as_str().context("no enrolment token")?;
    let catalog = catalog();
    (0..usize::try_from(count)?)
        .map(|number| {
            let host = SimHost::new(&catalog, 1, number);
            let wish = serde_json::json!({ "token": token, "host_id": host.id, "host_name": host.name });
            let entered = ask("/api/v1/agents/enroll", wish)?;
            let secret = entered["secret"].as_str().with_context(|| entered.to_string())?;
            Ok(Agent { host, bearer: format!("Bearer {secret}"), told: false })
        })
        .collect()
}

pub(crate) fn run(count: u64, seconds: u64) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let scratch = Scratch::new("limits")?;
    let limits =
        RateLimitConfig { agent_per_second: LIMIT, ingest_per_second: 10_000, api_per_second: 1_000_000 };
    let hub = BenchHub::with_limits(&runtime, scratch.sqlite(clock.clone())?, &clock, 10 << 30, limits)?;
    let began = clock.monotonic();
    let mut agents = enroll_agents(&hub, count + 1)?;
    let took = clock.monotonic().saturating_sub(began);
    println!(
        "{} agents were let in, {:.1} ms each",
        count + 1,
        took.as_secs_f64() * 1e3 / (count + 1) as f64
    );
    let mut greedy = agents.pop().context("no agent")?;
    let (fine, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let (greedy_fine, greedy_refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let times = std::sync::Mutex::new(Vec::new());
    let start = clock.monotonic();
    let share = agents.len().div_ceil(usize::try_from(SENDERS)?);
    std::thread::scope(|scope| {
        for agents in agents.chunks_mut(share) {
            let (clock, hub, fine, refused, times) = (&*clock, &hub, &fine, &refused, &times);
            scope.spawn(move || {
                let http = client();
                let many = agents.len() as u32;
                for second in 0..seconds {
                    for (number, agent) in agents.iter_mut().enumerate() {
                        let due = start
                            + Duration::from_secs(second) / LIMIT
                            + Duration::from_secs(1) / LIMIT * number as u32 / many;
                        std::thread::sleep(due.saturating_sub(clock.monotonic()));
                        let began = clock.monotonic();
                        let count = match agent.send(&http, &hub.url, clock) {
                            Ok(200) => fine,
                            _ => refused,
                        };
                        count.fetch_add(1, Ordering::Relaxed);
                        let took = clock.monotonic().saturating_sub(began).as_secs_f64() * 1e3;
                        times.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(took);
                    }
                }
            });
        }
        scope.spawn(|| {
            let http = client();
            for number in 0..seconds as u32 * LIMIT * OVERLOAD_FACTOR {
                let due = start + Duration::from_secs(1) * number / (LIMIT * OVERLOAD_FACTOR);
                std::thread::sleep(due.saturating_sub(clock.monotonic()));
                let count = match greedy.send(&http, &hub.url, &*clock) {
                    Ok(200) => &greedy_fine,
                    _ => &greedy_refused,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
    let (p50, p99, max) = percentiles(times.into_inner().unwrap_or_default());
    let count_of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "  {count} agents at {LIMIT}/s for {seconds} s: {} taken, {} refused; p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms",
        count_of(&fine),
        count_of(&refused)
    );
    println!(
        "  one at {}/s: {} taken, {} refused",
        LIMIT * OVERLOAD_FACTOR,
        count_of(&greedy_fine),
        count_of(&greedy_refused)
    );
    hub.stop();
    Ok(())
}

//! Fairness of the rate limits: a thousand agents at their limit, and one agent at a hundred times
//! its limit, which must not slow down the others.

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

/// Requests per second of each agent.
const AGENT_LIMIT: u32 = 1;
const SENDERS: u64 = 24;
const OVERLOAD_FACTOR: u32 = 100;

/// Enrolled agent with its simulated host.
struct Agent {
    host: SimHost,
    bearer: String,
    is_shape_sent: bool,
}

impl Agent {
    fn send(&mut self, http: &ureq::Agent, url: &str, clock: &dyn Clock) -> anyhow::Result<u16> {
        loop {
            let tick = self.host.tick(clock.wall_ms(), 1_000);
            let batch = Batch {
                host_id: self.host.id.to_bytes().to_vec().into(),
                host_name: self.host.name.clone(),
                shapes: if self.is_shape_sent {
                    Vec::new()
                } else {
                    vec![wire::encode_shape(self.host.shape())]
                },
                snapshots: vec![wire::encode_snapshot(&tick)],
                sent_at_ms: clock.wall_ms(),
                facts: None,
            };
            self.is_shape_sent = true;
            let body = zstd::bulk::compress(&wire::encode_batch(&batch), 1)?;
            let request = http
                .post(format!("{url}/ingest/metrics"))
                .header("Authorization", &self.bearer)
                .header("Content-Type", wire::CONTENT_TYPE)
                .header("Content-Encoding", "zstd");
            let mut response = request.send(&body[..])?;
            response.body_mut().read_to_string()?;
            match response.status().as_u16() {
                409 => self.is_shape_sent = false,
                status => return Ok(status),
            }
        }
    }
}

fn client() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().new_agent()
}

/// Enrolls agents with one enrollment token.
fn enroll_agents(hub: &BenchHub<'_>, count: u64) -> anyhow::Result<Vec<Agent>> {
    let http = client();
    let post = |path: &str, body: serde_json::Value| -> anyhow::Result<serde_json::Value> {
        let request = http.post(format!("{}{path}", hub.url)).header("Authorization", hub.bearer());
        let mut response = request.content_type("application/json").send(body.to_string())?;
        Ok(serde_json::from_str(&response.body_mut().read_to_string()?)?)
    };
    let created = post("/api/v1/enrollment-tokens", serde_json::json!({ "name": "bench", "uses": count }))?;
    let token = created["token"].as_str().context("no enrollment token")?;
    let catalog = catalog();
    (0..usize::try_from(count)?)
        .map(|number| {
            let host = SimHost::new(&catalog, 1, number);
            let enrollment =
                serde_json::json!({ "token": token, "host_id": host.id, "host_name": host.name });
            let response = post("/api/v1/agents/enroll", enrollment)?;
            let secret = response["secret"].as_str().with_context(|| response.to_string())?;
            Ok(Agent { host, bearer: format!("Bearer {secret}"), is_shape_sent: false })
        })
        .collect()
}

pub(crate) fn run(count: u64, seconds: u64) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let scratch = Scratch::new("rate-limits")?;
    let limits = RateLimitConfig {
        agent_per_second: AGENT_LIMIT,
        ingest_per_second: 10_000,
        api_per_second: 1_000_000,
    };
    let hub = BenchHub::with_limits(&runtime, scratch.sqlite(clock.clone())?, &clock, 10 << 30, limits)?;
    let started = clock.monotonic();
    let mut agents = enroll_agents(&hub, count + 1)?;
    let elapsed = clock.monotonic().saturating_sub(started);
    println!(
        "{} agents enrolled, {:.1} ms each",
        count + 1,
        elapsed.as_secs_f64() * 1e3 / (count + 1) as f64
    );
    let mut overloading = agents.pop().context("no agent")?;
    let (accepted, rejected) = (AtomicU64::new(0), AtomicU64::new(0));
    let (overload_accepted, overload_rejected) = (AtomicU64::new(0), AtomicU64::new(0));
    let durations = std::sync::Mutex::new(Vec::new());
    let start = clock.monotonic();
    let share = agents.len().div_ceil(usize::try_from(SENDERS)?);
    std::thread::scope(|scope| {
        for agents in agents.chunks_mut(share) {
            let (clock, hub, accepted, rejected, durations) =
                (&*clock, &hub, &accepted, &rejected, &durations);
            scope.spawn(move || {
                let http = client();
                let agent_count = agents.len() as u32;
                for second in 0..seconds {
                    for (number, agent) in agents.iter_mut().enumerate() {
                        let due = start
                            + Duration::from_secs(second) / AGENT_LIMIT
                            + Duration::from_secs(1) / AGENT_LIMIT * number as u32 / agent_count;
                        std::thread::sleep(due.saturating_sub(clock.monotonic()));
                        let started = clock.monotonic();
                        let counter = match agent.send(&http, &hub.url, clock) {
                            Ok(200) => accepted,
                            _ => rejected,
                        };
                        counter.fetch_add(1, Ordering::Relaxed);
                        let duration_ms = clock.monotonic().saturating_sub(started).as_secs_f64() * 1e3;
                        durations.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(duration_ms);
                    }
                }
            });
        }
        scope.spawn(|| {
            let http = client();
            for number in 0..seconds as u32 * AGENT_LIMIT * OVERLOAD_FACTOR {
                let due = start + Duration::from_secs(1) * number / (AGENT_LIMIT * OVERLOAD_FACTOR);
                std::thread::sleep(due.saturating_sub(clock.monotonic()));
                let counter = match overloading.send(&http, &hub.url, &*clock) {
                    Ok(200) => &overload_accepted,
                    _ => &overload_rejected,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
    let (p50, p99, max) = percentiles(durations.into_inner().unwrap_or_default());
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "  {count} agents at {AGENT_LIMIT}/s for {seconds} s: {} accepted, {} rejected; \
         p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms",
        value(&accepted),
        value(&rejected)
    );
    println!(
        "  one agent at {}/s: {} accepted, {} rejected",
        AGENT_LIMIT * OVERLOAD_FACTOR,
        value(&overload_accepted),
        value(&overload_rejected)
    );
    hub.stop();
    Ok(())
}

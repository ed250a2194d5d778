//! Honest agents and viewers, and what they lost.

use crate::hub_process::HubProcess;
use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use perfwatch::simulate::SimHost;
use perfwatch_model::wire::{self, Batch, IngestResponse};
use perfwatch_model::{Clock, Snapshot, limits};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const SENDERS: usize = 16;
const INTERVAL: Duration = Duration::from_secs(1);
/// Hosts whose missing data is listed.
const MAX_LISTED_HOSTS: usize = 5;

struct HonestAgent {
    host: SimHost,
    bearer: String,
    /// Snapshots without an acknowledgment, as in the spool of an agent.
    spool: Vec<Snapshot>,
    is_shape_sent: bool,
    acknowledged: u64,
    /// Monotonic time of the next tick.
    due: Duration,
}

/// Honest agents with their counts.
pub(crate) struct HonestAgents {
    agents: Vec<Mutex<HonestAgent>>,
    generated: AtomicU64,
    accepted: AtomicU64,
    /// Requests that were not accepted, by status and code.
    refusals: Mutex<BTreeMap<String, u64>>,
}

impl HonestAgents {
    pub(crate) fn enroll(hub: &HubProcess, admin: &str, count: u64) -> anyhow::Result<Self> {
        let agents = hub.enroll_fleet(admin, usize::try_from(count)?)?.into_iter().map(|(host, bearer)| {
            Mutex::new(HonestAgent {
                host,
                bearer,
                spool: Vec::new(),
                is_shape_sent: false,
                acknowledged: 0,
                due: Duration::ZERO,
            })
        });
        Ok(Self {
            agents: agents.collect(),
            generated: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refusals: Mutex::default(),
        })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.agents.iter().map(|agent| super::lock(agent).host.name.clone()).collect()
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Largest number of snapshots that one agent could not deliver yet.
    pub(crate) fn backlog(&self) -> usize {
        self.agents.iter().map(|agent| super::lock(agent).spool.len()).max().unwrap_or_default()
    }

    /// Sends one snapshot per agent and second.
    pub(crate) fn send_until(&self, url: &str, clock: &dyn Clock, stop: &AtomicBool) {
        std::thread::scope(|scope| {
            for agents in self.agents.chunks(self.agents.len().div_ceil(SENDERS).max(1)) {
                scope.spawn(move || {
                    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(20)));
                    let http = config.http_status_as_error(false).build().new_agent();
                    while !stop.load(Ordering::Relaxed) {
                        let started = clock.monotonic();
                        for agent in agents {
                            let mut agent = super::lock(agent);
                            self.collect(&mut agent, clock);
                            if let Err(refusal) = self.send(&mut agent, &http, url, clock) {
                                *super::lock(&self.refusals).entry(refusal).or_default() += 1;
                            }
                        }
                        std::thread::sleep((started + INTERVAL).saturating_sub(clock.monotonic()));
                    }
                });
            }
        });
    }

    /// Adds the ticks that are due: an agent collects while a request of it waits.
    fn collect(&self, agent: &mut HonestAgent, clock: &dyn Clock) {
        let now = clock.monotonic();
        if agent.due.is_zero() {
            agent.due = now;
        }
        while agent.due <= now {
            let age_ms = i64::try_from((now - agent.due).as_millis()).unwrap_or_default();
            let tick = agent.host.tick(clock.wall_ms() - age_ms, 1_000);
            agent.spool.push(tick);
            agent.due += INTERVAL;
            self.generated.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send(
        &self,
        agent: &mut HonestAgent,
        http: &ureq::Agent,
        url: &str,
        clock: &dyn Clock,
    ) -> Result<(), String> {
        let count = agent.spool.len().min(limits::MAX_BATCH_SNAPSHOTS / 4);
        for _ in 0..2 {
            let shapes = (!agent.is_shape_sent).then(|| wire::encode_shape(agent.host.shape()));
            let batch = Batch {
                host_id: agent.host.id.to_bytes().to_vec().into(),
                host_name: agent.host.name.clone(),
                shapes: shapes.into_iter().collect(),
                snapshots: agent.spool[..count].iter().map(wire::encode_snapshot).collect(),
                sent_at_ms: clock.wall_ms(),
                facts: None,
            };
            let request = http.post(format!("{url}/ingest/metrics")).header("Authorization", &agent.bearer);
            let request = request.header("Content-Type", wire::CONTENT_TYPE);
            let sent = request.send(&wire::encode_batch(&batch)[..]);
            let mut response = sent.map_err(|error| format!("no response: {error}"))?;
            let (status, text) =
                (response.status().as_u16(), response.body_mut().read_to_string().unwrap_or_default());
            agent.is_shape_sent = status != 409;
            match status {
                200 => {
                    let report: IngestResponse = serde_json::from_str(&text).unwrap_or_default();
                    if let Some(rejected) = report.rejected.first() {
                        let code = rejected.code.clone();
                        *super::lock(&self.refusals).entry(format!("rejected {code}")).or_default() += 1;
                    }
                    agent.acknowledged += (report.accepted + report.duplicates) as u64;
                    self.accepted.fetch_add(report.accepted as u64, Ordering::Relaxed);
                    agent.spool.drain(..count);
                    return Ok(());
                }
                409 => {}
                status => return Err(format!("{status} {}", super::attack::error_code(&text))),
            }
        }
        Err("409 twice".to_owned())
    }

    /// Prints what was refused, not accepted, or accepted and is not stored.
    pub(crate) fn report(&self, hub: &HubProcess, admin: &str) {
        let waiting: usize = self.agents.iter().map(|agent| super::lock(agent).spool.len()).sum();
        let (mut missing, mut renamed, mut acknowledged) = (Vec::new(), Vec::new(), 0);
        for agent in &self.agents {
            let agent = super::lock(agent);
            let id = agent.host.id;
            acknowledged += agent.acknowledged;
            let path = format!("/api/v1/hosts/{id}/export?format=csv&tier=raw&metric=load.1m&from=-2h");
            let stored =
                hub.text(&path, admin, None).map(|text| text.lines().count().saturating_sub(1) as u64);
            let stored = stored.unwrap_or_default();
            if stored < agent.acknowledged {
                missing.push((agent.host.name.clone(), agent.acknowledged - stored));
            }
            let host = hub.request(&format!("/api/v1/hosts/{id}"), admin, None).unwrap_or_default();
            let name = host["name"].as_str().unwrap_or("absent").to_owned();
            if name != agent.host.name {
                renamed.push(format!("{} is {name:?}", agent.host.name));
            }
        }
        println!(
            "  honest agents: {} generated, {acknowledged} accepted, {waiting} never accepted; \
             refused requests {:?}",
            self.generated.load(Ordering::Relaxed),
            super::lock(&self.refusals)
        );
        let deleted: u64 = missing.iter().map(|(_, count)| count).sum();
        missing.truncate(MAX_LISTED_HOSTS);
        println!("  honest history: {deleted} accepted rows are not stored {missing:?}");
        let count = renamed.len();
        renamed.truncate(MAX_LISTED_HOSTS);
        println!("  honest names: {count} changed {renamed:?}");
    }
}

#[derive(Default)]
struct ViewerCounts {
    ticks: AtomicU64,
    lagged: AtomicU64,
    closed: AtomicU64,
}

/// Honest WebSocket clients, each with all hosts.
pub(crate) struct HonestViewers {
    runtime: tokio::runtime::Runtime,
    counts: Arc<ViewerCounts>,
}

impl HonestViewers {
    pub(crate) fn connect(address: &str, bearer: &str, count: u64) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let counts = Arc::new(ViewerCounts::default());
        for _ in 0..count {
            let mut request = format!("ws://{address}/api/ws/metrics").into_client_request()?;
            request.headers_mut().insert("authorization", bearer.parse().context("token")?);
            let counts = counts.clone();
            runtime.spawn(async move {
                loop {
                    watch(request.clone(), &counts).await;
                    counts.closed.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
        Ok(Self { runtime, counts })
    }

    pub(crate) fn report(self, accepted: u64, viewers: u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        println!(
            "  honest viewers: {} of {} ticks received, {} times lagged, {} connections closed",
            count(&self.counts.ticks),
            accepted * viewers,
            count(&self.counts.lagged),
            count(&self.counts.closed)
        );
        self.runtime.shutdown_background();
    }
}

/// Counts the messages of one connection until it is closed.
async fn watch(request: tokio_tungstenite::tungstenite::handshake::client::Request, counts: &ViewerCounts) {
    let Ok((mut socket, _)) = connect_async(request).await else { return };
    let subscribe = json!({ "subscribe": { "id": 1, "metrics": ["cpu.usage"] } }).to_string();
    if socket.send(Message::Text(subscribe.into())).await.is_err() {
        return;
    }
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        if text.starts_with("{\"type\":\"tick\"") {
            counts.ticks.fetch_add(text.matches("\"t\":").count() as u64, Ordering::Relaxed);
        } else if text.starts_with("{\"type\":\"lagged\"") {
            counts.lagged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

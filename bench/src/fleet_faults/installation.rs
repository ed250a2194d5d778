//! Installation under test: hubs on one PostgreSQL and one Redis, behind a balancer, each connected through
//! links.

use super::balancer::Balancer;
use super::faults::FaultKind;
use super::links::{Link, LinkState, LinkTarget, Relay};
use crate::hub_process::HubProcess;
use anyhow::Context as _;
use perfwatch_model::SystemClock;
use perfwatch_testkit::Postgres;
use perfwatch_testkit::redis::Redis;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

const DATABASE: &str = "fleet";
/// Connections of all hubs, of those that were killed, and of the queries for leases.
const POSTGRES_SETTINGS: [&str; 1] = ["max_connections=200"];
/// Key of all hubs, which share encrypted settings.
const ENCRYPTION_KEY: &str = "0707070707070707070707070707070707070707070707070707070707070707";
/// Hubs that hold leases of tasks now, without the number of their process.
const LEASE_HOLDERS: &str = "SELECT DISTINCT split_part(holder, ' ', 1) FROM lease WHERE name NOT LIKE 'hub %' \
     AND until_ms > extract(epoch FROM clock_timestamp()) * 1000";
/// Attempts to do what takes some time to reach all hubs.
const MAX_ATTEMPTS: usize = 100;
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Attempts to start a hub again, as a service manager does.
const MAX_RESTARTS: usize = 10;
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Longest time to wait for the end of a hub after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Hub and its links.
struct HubNode {
    process: HubProcess,
    clients: Arc<Link>,
    store: Arc<Link>,
    redis: Arc<Link>,
}

/// Running installation; its processes end when it is dropped.
pub(super) struct Installation {
    hubs: Vec<HubNode>,
    redis: Redis,
    postgres: Postgres,
    /// Address of the balancer, without a scheme.
    pub(super) address: String,
    /// Tokens as headers.
    pub(super) admin: String,
    pub(super) viewer: String,
}

fn hub_id(index: usize) -> String {
    format!("hub-{index}")
}

impl Installation {
    /// Starts all processes; the links run on the runtime.
    pub(super) fn start(
        runtime: &Runtime,
        folder: &Path,
        hub_count: usize,
        closes_connections: bool,
    ) -> anyhow::Result<Self> {
        let (postgres, redis) = (Postgres::start_with(&POSTGRES_SETTINGS), Redis::start());
        postgres.database(DATABASE);
        let start_hub = |index| -> anyhow::Result<HubNode> {
            let folder = folder.join(hub_id(index));
            std::fs::create_dir_all(&folder)?;
            let relay = |path| runtime.block_on(Relay::start(LinkTarget::Unix(path)));
            let (store, redis) = (relay(postgres.socket())?, relay(redis.socket())?);
            let (id, store_url) = (hub_id(index), store_url(&store.address));
            let redis_url = format!("redis://{}", redis.address);
            let variables = [
                ("PERFWATCH_HUB_ID", id.as_str()),
                ("PERFWATCH_HUB_STORE", store_url.as_str()),
                ("PERFWATCH_HUB_REDIS", redis_url.as_str()),
                ("PERFWATCH_HUB_ENCRYPTION_KEY", ENCRYPTION_KEY),
                ("PERFWATCH_HUB_ALLOWED_TARGETS", "127.0.0.0/8"),
                ("PERFWATCH_HUB_SHUTDOWN_DELAY", "2s"),
            ];
            let process = HubProcess::start(&folder, &variables)?;
            let clients = Link::new(LinkTarget::Tcp(process.address.clone()));
            Ok(HubNode { process, clients, store: store.link, redis: redis.link })
        };
        let hubs: Vec<HubNode> = (0..hub_count).map(start_hub).collect::<anyhow::Result<_>>()?;
        let links = hubs.iter().map(|hub| hub.clients.clone()).collect();
        let balancer = runtime.block_on(Balancer::start(links, closes_connections))?;
        let first = &hubs[0].process;
        let (admin, viewer) = (first.create_user("root", "admin")?, first.create_user("vera", "viewer")?);
        let installation = Self { hubs, redis, postgres, address: balancer.address, admin, viewer };
        installation.on_all_hubs("/api/v1/hosts", |response| response["hosts"].is_array())?;
        Ok(installation)
    }

    pub(super) fn hub(&self, index: usize) -> &HubProcess {
        &self.hubs[index].process
    }

    pub(super) fn hub_count(&self) -> usize {
        self.hubs.len()
    }

    /// Replaces the rules, and adds a channel; waits until all hubs know them.
    pub(super) fn set_up_alerting(&self, rules: &[Value], webhook: &str) -> anyhow::Result<()> {
        let hub = self.hub(0);
        let existing = hub.request("/api/v1/rules", &self.admin, None)?;
        for rule in existing["rules"].as_array().into_iter().flatten() {
            hub.delete(
                &format!("/api/v1/rules/{}", rule["rule"]["id"].as_str().context("rule")?),
                &self.admin,
            )?;
        }
        for rule in rules {
            let created = hub.request("/api/v1/rules", &self.admin, Some(rule))?;
            anyhow::ensure!(created["error"].is_null(), "{created}");
        }
        let channel = json!({ "name": "hook", "kind": "webhook", "settings": { "url": webhook } });
        let created = hub.request("/api/v1/channels", &self.admin, Some(&channel))?;
        anyhow::ensure!(created["error"].is_null(), "{created}");
        let count = rules.len();
        self.on_all_hubs("/api/v1/rules", |response| {
            response["rules"].as_array().is_some_and(|rules| rules.len() == count)
        })?;
        self.on_all_hubs("/api/v1/channels", |response| {
            response["channels"].as_array().is_some_and(|channels| channels.len() == 1)
        })
    }

    /// Waits until the response of every hub to a request of the administrator fits.
    pub(super) fn on_all_hubs(&self, path: &str, fits: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        for hub in &self.hubs {
            let mut last = String::new();
            let mut request = || match hub.process.request(path, &self.admin, None) {
                Ok(response) => {
                    last = response.to_string();
                    fits(&response)
                }
                Err(error) => {
                    last = error.to_string();
                    false
                }
            };
            let is_done = (0..MAX_ATTEMPTS).any(|_| {
                let is_done = request();
                if !is_done {
                    std::thread::sleep(RETRY_DELAY);
                }
                is_done
            });
            anyhow::ensure!(is_done, "{path} of {}: {last:.300}", hub.process.url);
        }
        Ok(())
    }

    /// Index of the hub that holds the leases. PostgreSQL must run.
    pub(super) fn lease_holder(&self) -> Option<usize> {
        let holders = self.postgres.query(DATABASE, LEASE_HOLDERS);
        let first = holders.lines().next()?;
        (0..self.hubs.len()).find(|index| hub_id(*index) == first)
    }

    /// Starts a fault; faults of a hub concern the hub with this index.
    pub(super) fn begin(&mut self, kind: FaultKind, hub: usize) -> anyhow::Result<()> {
        let node = &mut self.hubs[hub];
        match kind {
            FaultKind::KillHub => node.process.kill()?,
            FaultKind::TerminateHub => node.process.signal("TERM")?,
            FaultKind::SuspendLeaseHolder => node.process.signal("STOP")?,
            FaultKind::KillRedis => self.redis.kill(),
            FaultKind::SuspendRedis => self.redis.signal("STOP"),
            FaultKind::StopPostgres => self.postgres.stop("INT"),
            FaultKind::CrashPostgres => self.postgres.stop("QUIT"),
            FaultKind::CutClients(state) => node.clients.set(state),
            FaultKind::CutStore(state) => node.store.set(state),
            FaultKind::CutRedis(state) => node.redis.set(state),
        }
        Ok(())
    }

    /// Ends a fault.
    pub(super) fn end(&mut self, kind: FaultKind, hub: usize) -> anyhow::Result<()> {
        let node = &mut self.hubs[hub];
        match kind {
            FaultKind::KillHub => node.restart()?,
            FaultKind::TerminateHub => {
                let ended = node.process.wait(STOP_TIMEOUT, &SystemClock::new())?;
                anyhow::ensure!(ended.is_some(), "{} does not end after SIGTERM", hub_id(hub));
                node.restart()?;
            }
            FaultKind::SuspendLeaseHolder => node.process.signal("CONT")?,
            FaultKind::KillRedis => self.redis.restart(),
            FaultKind::SuspendRedis => self.redis.signal("CONT"),
            FaultKind::StopPostgres | FaultKind::CrashPostgres => self.postgres.resume(),
            FaultKind::CutClients(_) => node.clients.set(LinkState::Open),
            FaultKind::CutStore(_) => node.store.set(LinkState::Open),
            FaultKind::CutRedis(_) => node.redis.set(LinkState::Open),
        }
        Ok(())
    }
}

impl HubNode {
    fn restart(&mut self) -> anyhow::Result<()> {
        for _ in 1..MAX_RESTARTS {
            if self.process.restart().is_ok() {
                return Ok(());
            }
            std::thread::sleep(RESTART_DELAY);
        }
        self.process.restart()
    }
}

fn store_url(address: &str) -> String {
    format!("postgres://postgres@{address}/{DATABASE}?sslmode=disable")
}

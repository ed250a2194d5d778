//! Roles with a hub: the hub alone, or together with an embedded agent.

use super::hub_config::hub_config;
use crate::config::Settings;
use crate::encryption_keys;
use crate::service_manager::{notify_ready, notify_stopping};
use crate::shutdown::Shutdown;
use crate::stdout::write_stdout;
use crate::store;
use anyhow::Context as _;
use perfwatch_agent::{Agent, AgentToken};
use perfwatch_hub::{Hub, HubConfig, HubDependencies};
use perfwatch_model::{Clock, SystemClock};
use perfwatch_notify::ChannelNotifier;
use perfwatch_ssh::SshCollector;
use perfwatch_workers::{PoolConfig, WorkerPool};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Maximum time for threads of blocking calls to end after the hub stopped.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the hub until a signal.
pub(crate) fn run_hub(settings: &Settings) -> anyhow::Result<()> {
    let shutdown = Shutdown::install()?;
    let (runtime, hub) = start_hub(settings, Arc::new(SystemClock::new()), false)?;
    print_url(&hub);
    notify_ready();
    shutdown.wait(|| hub.reload());
    notify_stopping();
    stop_hub(runtime, hub);
    Ok(())
}

/// Stops the hub. Requests to other servers that hang do not delay the end of the process.
fn stop_hub(runtime: Runtime, hub: Hub) {
    runtime.block_on(hub.stop());
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
}

/// Runs hub and agent until a signal. The embedded agent is a normal agent that receives the
/// hub's address and its secret from this process.
pub(crate) fn run_all(settings: &Settings) -> anyhow::Result<()> {
    let shutdown = Shutdown::install()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (runtime, hub) = start_hub(settings, clock.clone(), true)?;
    let mut config = settings.agent_config().map_err(anyhow::Error::msg)?;
    config.hub = hub.loopback_url();
    config.token = Some(AgentToken::new(hub.embedded_agent_secret()));
    config.ca = None;
    let agent = Agent::start(&config, clock, || {}).context("agent")?;
    print_url(&hub);
    notify_ready();
    shutdown.wait(|| hub.reload());
    notify_stopping();
    // The agent stops first, so that the hub still accepts its last snapshot.
    agent.stop();
    stop_hub(runtime, hub);
    Ok(())
}

fn start_hub(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    embedded_agent: bool,
) -> anyhow::Result<(Runtime, Hub)> {
    super::restrict_data(settings);
    let config = hub_config(settings)?;
    let secret_keys = encryption_keys::load_or_create(settings)?;
    let config = HubConfig { embedded_agent, secret_keys, ..config };
    let catalog = Arc::new(perfwatch_collect::catalog(perfwatch_agent::METRICS));
    let runtime = Builder::new_multi_thread().enable_all().build().context("runtime")?;
    let store = runtime.block_on(store::open(settings, clock.clone()))?;
    let workers = Arc::new(WorkerPool::new(clock.clone(), PoolConfig::default()));
    let notifier = Arc::new(ChannelNotifier::with_policy(config.outbound.clone(), workers.clone()));
    let collector = SshCollector::with_workers(clock.clone(), workers.clone());
    let remote_collector = Arc::new(collector.with_policy(config.outbound.clone()));
    let deps = HubDependencies { store, clock, catalog, notifier, remote_collector, workers };
    let hub = runtime.block_on(Hub::start(config, deps)).context("hub")?;
    Ok((runtime, hub))
}

/// Prints the URL that the user opens. The hub runs without standard output, too: a full disk or a closed
/// terminal must not end monitoring.
fn print_url(hub: &Hub) {
    let mut text = format!("PerfWatch {} is listening on {}\n", env!("CARGO_PKG_VERSION"), hub.url());
    if let Some(url) = hub.network_url() {
        text += &format!("From other machines: {url}\n");
    }
    if let [url, others @ ..] = &hub.setup_urls()[..] {
        text += &format!("No users yet. Create the first administrator:\n\n    {url}\n\n");
        for url in others {
            text += &format!("or from another machine:\n\n    {url}\n\n");
        }
    }
    if let Err(error) = write_stdout(text.as_bytes()) {
        let error = format!("{error:#}");
        tracing::warn!(hub.url = hub.url(), error, "failed to print the address of the hub");
    }
}

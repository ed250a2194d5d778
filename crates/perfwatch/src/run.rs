//! The long-running roles: everything in one, the hub, the agent.

use crate::config::Settings;
use crate::shutdown::Shutdown;
use anyhow::Context as _;
use perfwatch_agent::Agent;
use perfwatch_model::SystemClock;
use std::sync::Arc;

/// The agent until a signal.
pub(crate) fn agent(settings: &Settings) -> anyhow::Result<()> {
    let shutdown = Shutdown::listen()?;
    let agent = Agent::start(&settings.agent(), Arc::new(SystemClock::new())).context("agent")?;
    shutdown.wait();
    agent.stop();
    Ok(())
}

#[cfg(feature = "hub")]
pub(crate) use with_hub::{all, hub};

#[cfg(feature = "hub")]
mod with_hub {
    use super::*;
    use crate::store;
    use perfwatch_hub::{Deps, Hub, HubConfig};
    use perfwatch_model::Clock;
    use tokio::runtime::Runtime;

    /// The hub until a signal.
    pub(crate) fn hub(settings: &Settings) -> anyhow::Result<()> {
        let shutdown = Shutdown::listen()?;
        let (runtime, hub) = start(settings, Arc::new(SystemClock::new()))?;
        say_where(&hub);
        shutdown.wait();
        runtime.block_on(hub.stop());
        Ok(())
    }

    /// Hub and agent until a signal. The agent is the same as on any other host; it only finds
    /// its hub by itself.
    pub(crate) fn all(settings: &Settings) -> anyhow::Result<()> {
        let shutdown = Shutdown::listen()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (runtime, hub) = start(settings, clock.clone())?;
        let mut config = settings.agent();
        config.hub = format!("http://{}", hub.address());
        let agent = Agent::start(&config, clock).context("agent")?;
        say_where(&hub);
        shutdown.wait();
        // The agent first: its last snapshot still finds the hub.
        agent.stop();
        runtime.block_on(hub.stop());
        Ok(())
    }

    fn start(settings: &Settings, clock: Arc<dyn Clock>) -> anyhow::Result<(Runtime, Hub)> {
        let listen = settings.hub.listen.replace("localhost:", "127.0.0.1:").parse().with_context(|| {
            format!("hub.listen: {:?} is not ADDRESS:PORT, such as 127.0.0.1:8000", settings.hub.listen)
        })?;
        let config = HubConfig {
            listen,
            interval: settings.hub.interval.map(|time| time.0),
            history: store::history(settings),
            ..HubConfig::default()
        };
        let catalog = Arc::new(perfwatch_collect::catalog(perfwatch_agent::METRICS));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("runtime")?;
        let store = runtime.block_on(store::open(settings, clock.clone()))?;
        let deps = Deps { store, clock, catalog };
        let hub = runtime.block_on(Hub::start(config, deps)).context("hub")?;
        Ok((runtime, hub))
    }

    #[expect(clippy::print_stdout, reason = "what a person at the terminal is to open")]
    fn say_where(hub: &Hub) {
        println!("PerfWatch {} is at http://{}", env!("CARGO_PKG_VERSION"), hub.address());
    }
}

//! Role of the agent: collects and pushes until a signal or its revocation.

use crate::config::Settings;
use crate::service_manager::{notify_ready, notify_stopping};
use crate::shutdown::Shutdown;
use anyhow::Context as _;
use perfwatch_agent::Agent;
use perfwatch_model::SystemClock;
use std::sync::Arc;

/// Runs the agent until a signal.
pub(crate) fn run_agent(settings: &Settings) -> anyhow::Result<()> {
    let shutdown = Shutdown::install()?;
    let config = settings.agent_config().map_err(anyhow::Error::msg)?;
    super::restrict_data(settings);
    let agent = Agent::start(&config, Arc::new(SystemClock::new()), shutdown.trigger()).context("agent")?;
    notify_ready();
    // The pusher reads the token file again when the hub rejects the credential.
    shutdown.wait(|| {});
    notify_stopping();
    let revoked = agent.is_revoked();
    agent.stop();
    if revoked { Err(Revoked.into()) } else { Ok(()) }
}

/// Revocation of the agent by its hub; a restart cannot succeed.
#[derive(Debug, thiserror::Error)]
#[error("the hub revoked this agent; enroll it again with --token")]
pub(crate) struct Revoked;

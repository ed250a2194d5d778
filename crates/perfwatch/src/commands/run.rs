//! Long-running roles: the agent alone, the hub alone, both in one process.

mod agent;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod hub_config;

pub(crate) use agent::{Revoked, run_agent};
#[cfg(feature = "hub")]
pub(crate) use hub::{run_all, run_hub};

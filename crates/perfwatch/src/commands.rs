//! Commands of the command line: long-running roles and short tasks, one file each.

#[cfg(feature = "hub")]
mod backup;
#[cfg(feature = "hub")]
pub(crate) mod capsule;
#[cfg(feature = "hub")]
mod capture;
#[cfg(feature = "hub")]
mod export;
pub(crate) mod health;
#[cfg(feature = "hub")]
pub(crate) mod hub_api;
pub(crate) mod install;
#[cfg(feature = "hub")]
mod once;
mod run;
#[cfg(feature = "hub")]
mod simulate;
#[cfg(feature = "hub")]
pub(crate) mod top;
#[cfg(feature = "hub")]
pub(crate) mod user;

#[cfg(feature = "hub")]
pub(crate) use backup::{backup, restore};
#[cfg(feature = "hub")]
pub(crate) use capture::capture;
#[cfg(feature = "hub")]
pub(crate) use export::export;
#[cfg(feature = "hub")]
pub(crate) use once::once;
pub(crate) use run::{Revoked, run_agent};
#[cfg(feature = "hub")]
pub(crate) use run::{hub_config, run_all, run_hub};
#[cfg(feature = "hub")]
pub(crate) use simulate::simulate;

//! The binary: command line, configuration, telemetry, shutdown. The only crate that knows
//! all the others; it ties adapters to the hub's ports.

#[cfg(feature = "hub")]
mod admin;
pub mod cli;
pub mod config;
#[cfg(feature = "hub")]
pub mod docs;
#[cfg(feature = "hub")]
mod encryption_keys;
mod install;
#[cfg(feature = "hub")]
mod look;
mod run;
mod shutdown;
#[cfg(feature = "hub")]
pub mod simulate;
#[cfg(feature = "hub")]
mod store;
mod telemetry;
#[cfg(feature = "hub")]
mod user;

//! The binary: command line, configuration, telemetry, shutdown. The only crate that depends on
//! all others; it passes the adapters to the hub's ports.

pub mod cli;
mod commands;
pub mod config;
#[cfg(test)]
mod docgen;
mod doctor;
#[cfg(all(test, feature = "hub"))]
mod documented_commands;
#[cfg(feature = "hub")]
mod encryption_keys;
#[cfg(feature = "hub")]
mod open_files;
mod program;
mod reload;
#[cfg(feature = "hub")]
mod runtime;
mod service_manager;
mod shutdown;
#[cfg(feature = "hub")]
pub mod simulate;
mod stdout;
#[cfg(feature = "hub")]
mod store;
#[cfg(feature = "hub")]
mod store_url;
mod telemetry;
mod terminal;

//! Conformance of both engines: each module lists its cases, and each case is one test per engine. Tests of a
//! single engine are in its own module.

#![expect(clippy::unwrap_used, reason = "tests panic on errors")]

mod accounts;
mod history;
mod incidents;
mod postgres;
mod replica;
mod saved_views;
mod schema;
mod servers;
mod sqlite;
mod status_pages;
mod support;
mod tls;

use perfwatch_store::Store;
use std::sync::Arc;

/// Runs the cases of all modules on one store, one after the other.
async fn run_all_cases(store: &Arc<dyn Store>) {
    history::run_cases(store).await;
    accounts::run_cases(store).await;
    incidents::run_cases(store).await;
    servers::run_cases(store).await;
    saved_views::run_cases(store).await;
    status_pages::run_cases(store).await;
}

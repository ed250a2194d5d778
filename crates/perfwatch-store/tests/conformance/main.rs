//! Conformance of both engines: each case is one test per engine. Tests of a single engine are in its own
//! module.

#![expect(clippy::unwrap_used, reason = "tests panic on errors")]

mod accounts;
mod history;
mod incidents;
mod postgres;
mod servers;
mod sqlite;
mod support;
mod tls;

use perfwatch_store::Store;
use std::sync::Arc;

/// Defines a test per case and engine, and a function that runs all cases on one store.
macro_rules! conformance {
    ($($module:ident::$case:ident,)+) => {
        async fn run_all_cases(store: &Arc<dyn Store>) {
            $($module::$case(store).await;)+
        }

        mod sqlite_conformance {
            use super::*;

            $(#[tokio::test]
            async fn $case() {
                let folder = tempfile::tempdir().unwrap();
                let store: Arc<dyn Store> = Arc::new(support::open_sqlite(folder.path(), 1 << 30).unwrap());
                $module::$case(&store).await;
            })+
        }

        mod postgres_conformance {
            use super::*;

            $(#[tokio::test]
            async fn $case() {
                let server = support::postgres_server();
                let url = server.database(stringify!($case));
                let store: Arc<dyn Store> = Arc::new(support::connect(&url, "one").await.unwrap());
                $module::$case(&store).await;
            })+
        }
    };
}

conformance! {
    history::hosts_are_persisted,
    history::head_is_an_ordered_log,
    history::block_parts_are_read_selectively,
    history::commit_is_atomic,
    history::rows_are_sealed_once,
    history::watermarks_advance_only_past_rollups,
    history::sequence_ranges_merge,
    history::lease_is_renewed_by_its_holder,
    accounts::account_names_are_unique,
    accounts::sessions_and_tokens_are_deleted_with_their_account,
    accounts::settings_are_replaced,
    accounts::enrollment_uses_are_limited,
    accounts::revisions_detect_changes,
    accounts::audit_log_is_filtered_and_purged,
    incidents::definitions_are_replaced_and_deleted,
    incidents::one_incident_is_open_per_group_key,
    incidents::notifications_are_delivered_in_order,
    incidents::host_last_seen_is_replaced,
    incidents::state_columns_accept_every_value,
    servers::server_updates_check_version,
    servers::host_key_is_pinned_and_replaced_on_request,
    servers::collections_update_their_server,
    servers::each_job_is_claimed_once,
    servers::failing_servers_have_a_worker_quota,
}

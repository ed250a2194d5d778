//! Routes of the API with their handlers and DTOs, one module per resource.

pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod backtest;
pub(crate) mod capsules;
pub(crate) mod catalog;
pub(crate) mod channels;
pub(crate) mod collection_jobs;
pub(crate) mod collections;
pub(crate) mod collectors;
mod definitions;
pub(crate) mod enrollment_tokens;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod hosts;
pub(crate) mod incidents;
pub(crate) mod ingest;
pub(crate) mod install;
pub(crate) mod live_poll;
pub(crate) mod mail_server;
pub(crate) mod notifications;
pub(crate) mod overview;
pub(crate) mod proxy_check;
pub(crate) mod query;
pub(crate) mod recent;
pub(crate) mod rules;
pub(crate) mod servers;
pub(crate) mod servers_import;
pub(crate) mod settings;
pub(crate) mod silences;
pub(crate) mod status_pages;
pub(crate) mod system;
pub(crate) mod views;

use crate::app::AppState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes with the time limit of requests.
pub(crate) fn timed_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(recent::recent))
        .routes(routes!(live_poll::live_poll))
        .routes(routes!(catalog::list_metrics))
        .routes(routes!(hosts::list_hosts, hosts::update_hosts))
        .routes(routes!(overview::overview))
        .routes(routes!(overview::overview_history))
        .routes(routes!(overview::activity))
        .routes(routes!(hosts::get_host, hosts::delete_host))
        .routes(routes!(hosts::set_host_tags))
        .routes(routes!(hosts::storage))
        .routes(routes!(history::series))
        .routes(routes!(history::snapshot))
        .routes(routes!(history::processes))
        .routes(routes!(history::events))
        .routes(routes!(query::query))
        .routes(routes!(views::list_views, views::create_view))
        .routes(routes!(views::get_view, views::update_view, views::delete_view))
        .merge(status_routes())
        .routes(routes!(incidents::list_incidents))
        .routes(routes!(incidents::statistics))
        .routes(routes!(incidents::list_incident_history))
        .routes(routes!(incidents::get_incident))
        .routes(routes!(incidents::list_host_alerts))
        .routes(routes!(incidents::actions::acknowledge, incidents::actions::unacknowledge))
        .routes(routes!(incidents::actions::comment))
        .routes(routes!(rules::list_rules, rules::create_rule))
        .routes(routes!(backtest::backtest))
        .routes(routes!(rules::export))
        .routes(routes!(rules::import))
        .routes(routes!(rules::update_rule, rules::delete_rule))
        .merge(agentless_routes())
        .merge(hub_routes())
        .routes(routes!(silences::list_silences, silences::create_silence))
        .routes(routes!(silences::update_silence, silences::delete_silence))
        .routes(routes!(channels::list_channels, channels::create_channel))
        .routes(routes!(channels::kinds))
        .routes(routes!(channels::preview))
        .routes(routes!(channels::test_unsaved_channel))
        .routes(routes!(channels::update_channel, channels::delete_channel))
        .routes(routes!(channels::test))
        .routes(routes!(notifications::list_notifications))
        .routes(routes!(notifications::retry_notification))
        .routes(routes!(proxy_check::proxy_check))
        .routes(routes!(proxy_check::websocket_probe))
        .merge(perfwatch_accounts::routes())
        .routes(routes!(agents::list_agents))
        .routes(routes!(agents::enroll_agent))
        .routes(routes!(agents::revoke))
        .routes(routes!(agents::delete_agent))
        .routes(routes!(
            enrollment_tokens::list_enrollment_tokens,
            enrollment_tokens::create_enrollment_token
        ))
        .routes(routes!(enrollment_tokens::delete_enrollment_token))
        .routes(routes!(audit::list_audit_entries))
        .routes(routes!(install::script))
        .routes(routes!(health::metrics))
}

/// Public status pages.
fn status_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(status_pages::list_status_pages, status_pages::create_status_page))
        .routes(routes!(status_pages::update_status_page, status_pages::delete_status_page))
        .routes(routes!(status_pages::renew_status_link))
        .routes(routes!(status_pages::public_status))
}

/// Settings and state of the hub.
fn hub_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(settings::get_settings, settings::update_settings))
        .routes(routes!(settings::preview_settings))
        .routes(routes!(mail_server::get_mail_server, mail_server::update_mail_server))
        .routes(routes!(mail_server::test_mail_server))
        .routes(routes!(collectors::get_collectors, collectors::update_collectors))
        .routes(routes!(system::system))
        .routes(routes!(system::hub_series))
        .routes(routes!(system::list_tasks))
        .routes(routes!(system::list_connections))
        .routes(routes!(system::list_routes))
}

/// Agentless hosts and the collection queue.
fn agentless_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(servers::list_servers, servers::create_server))
        .routes(routes!(servers::get_server, servers::update_server, servers::delete_server))
        .routes(routes!(servers_import::import))
        .routes(routes!(servers::summary))
        .routes(routes!(servers::accept_host_key))
        .routes(routes!(collections::list_collections))
        .routes(routes!(collection_jobs::collect))
        .routes(routes!(collection_jobs::collect_all))
        .routes(routes!(collection_jobs::stats))
        .routes(routes!(collection_jobs::series))
        .routes(routes!(collection_jobs::jobs))
        .routes(routes!(collection_jobs::pause))
        .routes(routes!(collection_jobs::resume))
        .routes(routes!(collection_jobs::clean))
        .routes(routes!(collection_jobs::retry))
        .routes(routes!(collection_jobs::retry_all))
}

/// Downloads that last as long as the client reads.
pub(crate) fn streamed_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(history::export))
}

/// Routes without a time limit of the request. Each stage of a connection test has a timeout, and building a capsule.
pub(crate) fn untimed_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(capsules::create_capsule))
        .routes(routes!(collections::test_unsaved))
        .routes(routes!(collections::test))
        .routes(routes!(install::download))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
}

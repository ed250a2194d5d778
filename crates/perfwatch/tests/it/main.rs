//! Integration tests of real processes: command line, ingestion, live stream, alerting, agentless
//! collection, crash recovery.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails at the first error and prints the logs"
)]

mod access;
mod agentless;
mod alerting;
mod audit;
mod body_limit;
mod capsules;
mod cli;
mod collect;
mod collection_progress;
mod collectors;
mod crash;
mod documentation;
mod encryption;
mod fair_shares;
mod front_door;
mod held_requests;
mod hidden_hosts;
mod history;
mod host_events;
mod host_tags;
mod hub_rules;
mod identity;
mod ingest;
mod installation;
mod jump_hosts;
mod live;
mod live_mirror;
mod mail_server;
mod multi_hub;
mod notifications;
mod oidc;
mod operation;
mod overview;
mod ownership;
mod preferences;
mod private_files;
mod proxies;
mod queries;
mod reads;
mod redis_sentinel;
mod replay;
mod rights;
mod rolling_update;
mod server_import;
mod simulation;
mod ssh_secrets;
mod status_pages;
mod support;
mod terminal;
mod tls;

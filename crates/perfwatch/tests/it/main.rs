//! The whole by starting real processes: command line, ingest, live stream, kill -9.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests end at the first surprise")]

mod access;
mod agentless;
mod alerting;
mod cli;
mod crash;
mod encryption;
mod history;
mod ingest;
mod jump_hosts;
mod live;
mod multi_hub;
mod oidc;
mod support;
mod tls;

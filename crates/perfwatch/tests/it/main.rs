//! The whole by starting real processes: command line, ingest, live stream, kill -9.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests end at the first surprise")]

mod access;
mod alerting;
mod cli;
mod crash;
mod history;
mod hubs;
mod ingest;
mod jumps;
mod live;
mod oidc;
mod sealed;
mod servers;
mod support;
mod tls;

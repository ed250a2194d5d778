//! The whole by starting real processes: command line, ingest, live stream, kill -9.

mod cli;
mod crash;
mod ingest;
mod live;
mod support;

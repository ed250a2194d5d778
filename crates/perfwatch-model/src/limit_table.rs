//! Table of the limits on shared resources, from which `docs/LIMITS.md` is generated, and the counters of
//! their refusals.
//!
//! Every resource that one principal can use up has a limit per principal. A [`Limit`] is a static, so that
//! any crate counts a refusal with [`Limit::refuse`] and `perfwatch-metrics` reports all of them as
//! `perfwatch_limit_refusals_total{limit="…"}`.

use crate::limits;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Value of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitValue {
    /// Number of items.
    Count(u64),
    /// Size in bytes.
    Bytes(u64),
    /// Number of items per second.
    PerSecond(u64),
    /// Number of items per hour.
    PerHour(u64),
    /// Number of items per day.
    PerDay(u64),
    /// Duration in milliseconds.
    Milliseconds(u64),
    /// Percentage of the total.
    Percent(u64),
    /// Value that depends on a setting.
    Text(&'static str),
    /// Key of a setting, and its default.
    Setting(&'static str, &'static str),
}

/// Principal or place that a limit counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitScope {
    /// A monitored host.
    Host,
    /// An agent, an API token, or an account that sends snapshots.
    Sender,
    /// An API token.
    Token,
    /// A user account, with its sessions and tokens.
    Account,
    /// A network address, or the group of IPv6 addresses of one site.
    Address,
    /// An open connection.
    Connection,
    /// A single request or message.
    Request,
    /// The whole hub.
    Hub,
}

/// A limit on a resource, with the counter of its refusals.
#[derive(Debug)]
pub struct Limit {
    /// Name in `docs/LIMITS.md` and in the label `limit` of the counter, `snake_case`.
    pub name: &'static str,
    /// Largest accepted value.
    pub value: LimitValue,
    /// Principal or place that the limit counts for.
    pub scope: LimitScope,
    /// Effect above the limit, for readers of the page.
    pub effect: &'static str,
    refusals: AtomicU64,
}

impl Limit {
    /// A limit without refusals.
    pub const fn new(name: &'static str, value: LimitValue, scope: LimitScope, effect: &'static str) -> Self {
        Self { name, value, scope, effect, refusals: AtomicU64::new(0) }
    }

    /// Counts a refusal, or another effect of the limit.
    pub fn refuse(&self) {
        self.refuse_many(1);
    }

    /// Counts several refusals.
    pub fn refuse_many(&self, count: u64) {
        self.refusals.fetch_add(count, Ordering::Relaxed);
    }

    /// Number of refusals since the start of the process.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }
}

const fn bytes(size: usize) -> LimitValue {
    LimitValue::Bytes(size as u64)
}

const fn count(number: usize) -> LimitValue {
    LimitValue::Count(number as u64)
}

const fn milliseconds(duration: Duration) -> LimitValue {
    LimitValue::Milliseconds(duration.as_millis() as u64)
}

/// Declares limits as statics and lists them in [`LIMITS`], in the order of the page.
macro_rules! limits {
    ($($(#[$attribute:meta])* $id:ident: $name:literal, $value:expr, $scope:ident, $effect:literal;)*) => {
        $(
            $(#[$attribute])*
            pub static $id: Limit = Limit::new($name, $value, LimitScope::$scope, $effect);
        )*
        /// All limits, in the order of `docs/LIMITS.md`.
        pub static LIMITS: &[&Limit] = &[$(&$id),*];
    };
}

limits! {
    // Ingestion.
    /// Size of an ingest body as received.
    BODY_BYTES: "body_bytes", bytes(limits::MAX_BODY_BYTES), Request,
        "413 `body_too_large`; agents send smaller batches";
    /// Size of an ingest body after decompression.
    DECOMPRESSED_BYTES: "decompressed_bytes", bytes(limits::MAX_DECOMPRESSED_BYTES), Request,
        "413 `decompressed_too_large`; agents send smaller batches";
    /// Snapshots of an ingest body.
    BATCH_SNAPSHOTS: "batch_snapshots", count(limits::MAX_BATCH_SNAPSHOTS), Request,
        "413 `too_many_snapshots`";
    /// Bodies that are being received from a sender.
    RECEIVING_SHARE: "receiving_share",
        LimitValue::Text("16 MiB of an agent, 64 MiB of an account"), Sender, "429 with `Retry-After`";
    /// Bodies that are being received from all senders.
    RECEIVING_BYTES: "receiving_bytes", bytes(limits::MAX_RECEIVING_BYTES), Hub,
        "429 with `Retry-After` for senders that use more than is left for others, except bodies up to 64 KiB";
    /// Bodies of other routes that are being received from an account or an address.
    API_RECEIVING_SHARE: "api_receiving_share", bytes(limits::MAX_API_RECEIVING_BYTES_PER_ACCOUNT), Account,
        "429 with `Retry-After`; anonymous requests count by address";
    /// Bodies of other routes that are being received.
    API_RECEIVING_BYTES: "api_receiving_bytes", bytes(limits::MAX_API_RECEIVING_BYTES), Hub,
        "429 with `Retry-After` for senders that use more than is left for others, except bodies up to 64 KiB";
    /// Memory of the decoded snapshots of a request.
    DECODED_REQUEST: "decoded_request", bytes(limits::MAX_DECODED_REQUEST_BYTES), Request,
        "413 `decoded_too_large`; agents send smaller batches";
    /// Memory of the decoded snapshots of a sender.
    DECODED_SHARE: "decoded_share", LimitValue::Text("64 MiB of an agent, 96 MiB of an account"), Sender,
        "its requests wait for each other; 429 with `Retry-After` for a body that needs more than is left";
    /// Submissions of more than 20,000 values that are processed at a time.
    LARGE_SUBMISSIONS: "large_submissions", count(limits::MAX_LARGE_SUBMISSIONS), Hub, "they wait for each other";
    /// Known hosts.
    HOSTS: "hosts", count(limits::MAX_HOSTS), Hub, "403 `too_many_hosts` for new hosts";
    /// Hosts that an account or a token created.
    HOSTS_PER_SENDER: "hosts_per_sender", count(limits::MAX_HOSTS_PER_SENDER), Sender,
        "403 `too_many_hosts` for new hosts";
    /// New hosts of an account or a token.
    NEW_HOSTS: "new_hosts", LimitValue::PerHour(limits::MAX_NEW_HOSTS_PER_HOUR as u64), Sender,
        "429 with `Retry-After` for new hosts";
    /// Renames of a host.
    HOST_RENAMES: "host_renames", LimitValue::PerHour(limits::MAX_HOST_RENAMES_PER_HOUR as u64), Host,
        "the host keeps its name";
    /// Shapes of a host that are new.
    NEW_SHAPES: "new_shapes", LimitValue::PerHour(limits::MAX_NEW_SHAPES_PER_HOUR as u64), Host,
        "429 with `Retry-After` for snapshots with a new set of columns; others are accepted";
    /// Size of the new shapes of a host.
    NEW_SHAPE_BYTES: "new_shape_bytes", LimitValue::Text("1/20 of `hub.disk_budget` per hour, at least 16 MiB"), Host,
        "429 with `Retry-After` for snapshots with a new set of columns; at once 1/64 of the budget, 2 to 64 MiB";
    /// New columns of a host.
    NEW_COLUMNS: "new_columns", LimitValue::PerDay(limits::MAX_NEW_COLUMNS_PER_DAY as u64), Host,
        "429 with `Retry-After` for snapshots with a new set of columns";
    /// Shapes in the blocks of a host.
    STORED_SHAPES: "stored_shapes", LimitValue::Count(limits::MAX_STORED_SHAPES), Host,
        "429 with `Retry-After` for snapshots with a new set of columns";
    /// Unsealed rows of a host.
    HEAD_SHARE: "head_share", LimitValue::Percent(limits::MAX_HEAD_SHARE_PERCENT), Host,
        "429 with `Retry-After` until the rows are sealed; percent of the space for unsealed rows";
    /// Snapshots of a host in the recent window.
    RECENT_BYTES: "recent_bytes", bytes(limits::MAX_RECENT_BYTES), Host,
        "its oldest snapshots leave the recent window";
    /// Snapshots in the recent window of the hosts that an account or a token created in the last seven days.
    NEW_HOSTS_RECENT_BYTES: "new_hosts_recent_bytes", bytes(limits::MAX_NEW_HOSTS_RECENT_BYTES), Sender,
        "snapshots of these hosts leave the recent window";
    /// Snapshots of all hosts in the recent window.
    RECENT_TOTAL_BYTES: "recent_total_bytes", bytes(limits::MAX_RECENT_TOTAL_BYTES), Hub,
        "the oldest snapshots of hosts above an equal share leave the recent window";
    /// Alerts of a host in all phases.
    ALERTS_PER_HOST: "alerts_per_host", count(limits::MAX_ALERTS_PER_HOST), Host,
        "rules are not evaluated for further instances of the host";
    /// Entries of an account or a token in the timeline of an incident.
    INCIDENT_ENTRIES: "incident_entries", LimitValue::Count(limits::MAX_INCIDENT_ENTRIES_PER_ACTOR as u64), Account,
        "`409 too_many_entries` for comments and acknowledgments of this incident";
    /// Use of the storage by a host.
    STORAGE_SHARE: "storage_share", LimitValue::Percent(limits::MAX_EQUAL_SHARE_PERCENT), Host,
        "when `hub.disk_budget` is short, its data is deleted first; percent of an equal share of all hosts. \
         All hosts that an account or a token created in the last seven days have the share of a single host";
    /// Rows of a host until the disk usage is measured again.
    SPACE_SHARE: "space_share", LimitValue::Percent(limits::MAX_SPACE_SHARE_PERCENT), Host,
        "429 with `Retry-After`, or 413 `batch_too_large`; percent of the free `hub.disk_budget`, measured every 2 s";
    /// Appends of a host above its share of an almost used disk budget.
    STORAGE_REFUSAL: "storage_refusal", LimitValue::Percent(limits::MAX_SHARED_USE_PERCENT), Host,
        "429 with `Retry-After` for hosts above `storage_share`; percent of the usable `hub.disk_budget`";

    // Reads.
    /// Concurrent reads of history of all principals.
    READS: "reads", count(limits::MAX_READS), Hub, "reads wait; 503 `busy` after 20 s";
    /// Concurrent reads of history.
    READS_PER_PRINCIPAL: "reads_per_principal", count(limits::MAX_READS_PER_PRINCIPAL), Account,
        "reads wait; 503 `busy` after 20 s";
    /// Waiting reads of history.
    WAITING_READS: "waiting_reads", count(limits::MAX_WAITING_READS), Account, "429 with `Retry-After`";
    /// Memory of all reads and their responses.
    READ_MEMORY: "read_memory", bytes(limits::MAX_READ_BYTES), Hub, "reads wait; 503 `busy` after 20 s";
    /// Memory of the reads of a principal and their responses.
    READ_MEMORY_PER_PRINCIPAL: "read_memory_per_principal", bytes(limits::MAX_READ_BYTES_PER_PRINCIPAL),
        Account, "reads wait; 503 `busy` after 20 s";
    /// Points of all series of a response.
    RESULT_POINTS: "result_points", count(limits::MAX_RESULT_POINTS), Request,
        "the response has a coarser step";
    /// Series of a response.
    RESULT_SERIES: "result_series", count(limits::MAX_RESULT_SERIES), Request, "422 `too_many_series`";
    /// Stored values that a request decodes.
    READ_CELLS: "read_cells", count(limits::MAX_READ_CELLS), Request,
        "a coarser tier is read; otherwise 422 `too_many_series`";
    /// Time of a query over many hosts.
    QUERY_TIME: "query_time", milliseconds(limits::QUERY_TIMEOUT), Request,
        "the hosts that are left are not read; `left_out` counts them";
    /// Series of a query over many hosts in its response.
    QUERY_SERIES: "query_series", count(limits::MAX_QUERY_SERIES), Request,
        "the series with the largest newest value are returned; `left_out` counts the others";
    /// Points of series and groups that a query over many hosts has in memory.
    QUERY_POINTS: "query_points", count(limits::MAX_QUERY_POINTS), Request,
        "further series are left out; `left_out` counts them";
    /// Saved views of an account.
    SAVED_VIEWS: "saved_views", count(limits::MAX_VIEWS_PER_ACCOUNT), Account, "409 `too_many_views`";
    /// Public status pages of all accounts.
    STATUS_PAGES: "status_pages", count(limits::MAX_STATUS_PAGES), Hub,
        "409 `too_many_status_pages`; the last quarter is left to administrators of all hosts";
    /// Public status pages that an account answers for.
    STATUS_PAGES_PER_ACCOUNT: "status_pages_per_account", count(limits::MAX_STATUS_PAGES_PER_ACCOUNT), Account,
        "409 `too_many_status_pages`";

    // Requests and connections.
    /// Ingest requests of an agent.
    AGENT_REQUESTS: "agent_requests",
        LimitValue::Setting("hub.limits.agent_requests_per_second", "20 per second"), Sender,
        "429 with `Retry-After`; the agent keeps its snapshots";
    /// Ingest requests of a token or an account.
    INGEST_CLIENT_REQUESTS: "ingest_client_requests",
        LimitValue::Setting("hub.limits.ingest_requests_per_second", "half of 10,000 per second"), Sender,
        "429 with `Retry-After`";
    /// Ingest requests of all senders.
    INGEST_REQUESTS: "ingest_requests",
        LimitValue::Setting("hub.limits.ingest_requests_per_second", "10,000 per second"), Hub,
        "429 with `Retry-After`";
    /// Other requests of an account or a token.
    API_REQUESTS: "api_requests",
        LimitValue::Setting("hub.limits.api_requests_per_second", "100 per second"), Account,
        "429 with `Retry-After`; each API token counts separately";
    /// Requests without credentials.
    ANONYMOUS_REQUESTS: "anonymous_requests",
        LimitValue::Setting("hub.limits.api_requests_per_second", "100 per second"), Address,
        "429 with `Retry-After`";
    /// Open connections of an address.
    CONNECTIONS_PER_ADDRESS: "connections_per_address",
        LimitValue::Setting("hub.limits.max_connections_per_address", "2,000"), Address,
        "the connection is closed; trusted proxies are exempt";
    /// Open connections of all clients.
    CONNECTIONS: "connections", LimitValue::Setting("hub.limits.max_connections", "20,000"), Hub,
        "the connection is closed";
    /// First byte and TLS handshake of a connection.
    HANDSHAKE_TIME: "handshake_time", milliseconds(limits::HANDSHAKE_TIMEOUT), Connection,
        "the connection is closed";
    /// Head of a request, including the idle time of a kept-alive connection.
    REQUEST_HEAD_TIME: "request_head_time", milliseconds(limits::REQUEST_HEAD_TIMEOUT), Connection,
        "the connection is closed";
    /// Body of a request.
    REQUEST_BODY_TIME: "request_body_time", milliseconds(limits::REQUEST_BODY_TIMEOUT), Request,
        "the connection is closed";
    /// Time in which a reader that does not keep up must accept 16 KiB.
    RESPONSE_STALL_TIME: "response_stall_time", milliseconds(limits::RESPONSE_STALL_TIMEOUT), Connection,
        "the connection is closed if the client accepted less than 16 KiB";
    /// Time without a byte in either direction.
    CONNECTION_IDLE_TIME: "connection_idle_time", milliseconds(limits::CONNECTION_IDLE_TIMEOUT), Connection,
        "the connection is closed, also an upgraded WebSocket";
    /// Clients of the live stream.
    WEBSOCKET_CLIENTS: "websocket_clients", count(limits::MAX_WEBSOCKET_CLIENTS), Hub,
        "503 `too_many_clients`";
    /// WebSockets of an account.
    WEBSOCKETS_PER_ACCOUNT: "websockets_per_account", count(limits::MAX_WEBSOCKETS_PER_ACCOUNT), Account,
        "429 `too_many_clients`";
    /// Different selections of series that an account requested first.
    SELECTIONS_PER_ACCOUNT: "selections_per_account", count(limits::MAX_SELECTIONS_PER_ACCOUNT), Account,
        "error message `limit_reached`";
    /// Work for messages of the WebSocket clients of an account.
    CLIENT_MESSAGES: "client_messages", LimitValue::PerSecond(limits::MAX_CLIENT_MESSAGE_UNITS_PER_SECOND as u64),
        Account, "messages are read later; 4,000 at once, and a backfill counts one more per 500 hosts";
    /// Agentless hosts that are polled because their page is open.
    POLLED_HOSTS: "polled_hosts", count(limits::MAX_POLLED_HOSTS), Hub,
        "the host is collected at its interval only";
    /// Agentless hosts that are polled because an account has their page open.
    POLLED_HOSTS_PER_ACCOUNT: "polled_hosts_per_account", count(limits::MAX_POLLED_HOSTS_PER_ACCOUNT), Account,
        "the host is collected at its interval only";
    /// Memory of the subscriptions of an account.
    SUBSCRIPTION_MEMORY: "subscription_memory", bytes(limits::MAX_SUBSCRIPTION_BYTES_PER_ACCOUNT), Account,
        "error message `limit_reached`";
    /// Memory of cached encodings of live messages.
    ENCODING_MEMORY: "encoding_memory", bytes(limits::MAX_ENCODING_BYTES_PER_ACCOUNT), Account,
        "messages are encoded again for each client";
    /// Memory of the messages that clients did not receive yet.
    UNSENT_MESSAGES: "unsent_messages", bytes(limits::MAX_UNSENT_BYTES_PER_ACCOUNT), Account,
        "the WebSocket is closed with code 1013";
    /// Recent snapshots of a host that a subscription receives first.
    BACKFILL: "backfill", bytes(limits::MAX_BACKFILL_BYTES), Request, "older snapshots are left out";
    /// Subscriptions of a WebSocket.
    SUBSCRIPTIONS: "subscriptions", count(limits::MAX_SUBSCRIPTIONS), Connection,
        "error message `limit_reached`";
    /// Wildcard patterns of a subscription.
    SELECTOR_PATTERNS: "selector_patterns", count(limits::MAX_SELECTOR_PATTERNS), Request,
        "error message `limit_reached`";
    /// Hosts or metrics of a subscription.
    SELECTORS: "selectors", count(limits::MAX_SELECTORS), Request, "error message `limit_reached`";

    // Computation for untrusted input.
    /// Jobs that wait for the worker pool.
    WAITING_JOBS: "waiting_jobs", count(limits::MAX_WAITING_JOBS), Hub, "503 `busy`";
    /// Jobs of a principal that wait for the worker pool.
    WAITING_JOBS_PER_PRINCIPAL: "waiting_jobs_per_principal", count(limits::MAX_WAITING_JOBS_PER_PRINCIPAL),
        Account, "429 with `Retry-After`; servers and notification channels count separately";
    /// Input of a job of the worker pool.
    JOB_BYTES: "job_bytes",
        LimitValue::Text("64 KiB for keys and templates, 256 KiB for imports, 32 MiB for captures"), Request,
        "413 `body_too_large`; captures fail";
    /// Run time of a job of the worker pool.
    JOB_TIME: "job_time",
        LimitValue::Text("5 s for imports and templates, 10 s for keys, 20 s for captures"), Request,
        "422 `too_complex`; the thread is replaced until the job ends";
    /// Concurrent connection tests of all principals.
    CONNECTION_TESTS: "connection_tests", count(limits::MAX_CONNECTION_TESTS), Hub, "429 with `Retry-After`";
    /// Concurrent connection tests of a principal.
    CONNECTION_TESTS_PER_PRINCIPAL: "connection_tests_per_principal",
        count(limits::MAX_CONNECTION_TESTS_PER_PRINCIPAL), Account, "429 with `Retry-After`";
    /// Connection tests that a principal starts at once.
    CONNECTION_TEST_BURST: "connection_test_burst", count(limits::MAX_CONNECTION_TEST_BURST as usize),
        Account, "429 with `Retry-After`; one more every 10 s";
    /// Connections of notification channels and single sign-on.
    REFUSED_TARGETS: "refused_targets", LimitValue::Setting("hub.allowed_targets", "none"), Hub,
        "loopback, link-local and metadata addresses are not connected to";

    /// Test notifications that an account sends at once.
    CHANNEL_TESTS: "channel_tests", count(limits::MAX_CHANNEL_TEST_BURST as usize), Account,
        "429 with `Retry-After`; one more every 10 s, and a few at the same time";

    // Access.
    /// Password checks of an address that wait.
    PASSWORD_HASHES_PER_ADDRESS: "password_hashes_per_address", count(limits::MAX_PASSWORD_HASHES_PER_ADDRESS),
        Address, "429 with `Retry-After`";
    /// Password checks that wait.
    PASSWORD_HASHES: "password_hashes", count(limits::MAX_PASSWORD_HASHES), Hub, "429 with `Retry-After`";
    /// Entries of the audit log.
    AUDIT_ENTRIES: "audit_entries", count(limits::MAX_AUDIT_ENTRIES as usize), Hub,
        "the oldest entries of the principal and action with the most are deleted; security acts count apart";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn limits_have_unique_metric_labels() {
        let mut names = HashSet::new();
        for limit in LIMITS {
            let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(names.insert(limit.name) && limit.name.chars().all(is_label), "{}", limit.name);
            assert!(!limit.effect.is_empty() && !limit.effect.contains('|'), "{}", limit.name);
        }
    }
}

//! Limits on external input, each with its reason.

use std::time::Duration;

/// Time limit for the first byte of a connection on a TLS port, and for the TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for the head of a request, including the idle time of a kept-alive connection: agents push
/// every few seconds.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for the body of a request: a body of the maximum size needs 140 kB/s.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time in which a reader that does not keep up must accept [`MIN_RESPONSE_PROGRESS_BYTES`].
pub const RESPONSE_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that a slow reader must accept within [`RESPONSE_STALL_TIMEOUT`]: the slowest modem does.
pub const MIN_RESPONSE_PROGRESS_BYTES: usize = 16 << 10;
/// Time without a byte in either direction after which a connection is closed. The hub pings WebSockets
/// several times as often.
pub const CONNECTION_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Maximum size of a request body as received. A batch of 250 snapshots of a large host fits.
pub const MAX_BODY_BYTES: usize = 4 << 20;
/// Maximum size of a request body after decompression. Real batches compress about 5 times,
/// decompression bombs 1,000 times.
pub const MAX_DECOMPRESSED_BYTES: usize = 8 << 20;
/// Maximum window of a zstd stream (2^23 = 8 MiB), which is memory that the decoder allocates.
pub const MAX_ZSTD_WINDOW_LOG: u32 = 23;
/// Maximum number of snapshots in one request: a backfill batch is ingested in a few milliseconds.
pub const MAX_BATCH_SNAPSHOTS: usize = 500;
/// Maximum size of an encoded snapshot; 8,192 columns and 200 processes take less. Senders leave out
/// what exceeds it.
pub const MAX_SNAPSHOT_BYTES: usize = 512 << 10;
/// Maximum size of the encoded columns of a shape: 8,192 columns with names of 120 bytes. Senders leave
/// out what exceeds it.
pub const MAX_SHAPE_BYTES: usize = 1 << 20;
/// Maximum number of requests that are decompressed at the same time.
pub const MAX_CONCURRENT_DECOMPRESSIONS: usize = 8;
/// Maximum size of all ingest bodies that are being received: 4,000 agents on slow networks need 40 MB.
pub const MAX_RECEIVING_BYTES: usize = 128 << 20;
/// Maximum size of the bodies that are being received from an agent, which does not send two at once.
pub const MAX_RECEIVING_BYTES_PER_AGENT: usize = 16 << 20;
/// Maximum size of the bodies that are being received from an account, whose tokens may send for a fleet.
pub const MAX_RECEIVING_BYTES_PER_ACCOUNT: usize = 64 << 20;
/// Maximum size of all bodies that are being received by routes other than ingestion.
pub const MAX_API_RECEIVING_BYTES: usize = 64 << 20;
/// Maximum size of the bodies that are being received from an account, or from an address without an account:
/// 32 bodies of the maximum size.
pub const MAX_API_RECEIVING_BYTES_PER_ACCOUNT: usize = 8 << 20;
/// Maximum memory of all snapshots that are being decoded or wait to become durable.
pub const MAX_DECODED_BYTES: usize = 192 << 20;
/// Maximum memory of the snapshots of a request. A full batch of a host with 8,192 columns and 200 processes
/// takes 50 MB.
pub const MAX_DECODED_REQUEST_BYTES: usize = 64 << 20;
/// Maximum memory of the snapshots of an agent.
pub const MAX_DECODED_BYTES_PER_AGENT: usize = MAX_DECODED_REQUEST_BYTES;
/// Maximum memory of the snapshots of an account.
pub const MAX_DECODED_BYTES_PER_ACCOUNT: usize = 96 << 20;
/// Size of a body above which it is decoded on a blocking thread: up to it, decoding takes less than a
/// millisecond.
pub const MAX_INLINE_BODY_BYTES: usize = 256 << 10;
/// Maximum number of columns of a snapshot: 128 cores, 200 disks and 200 mounts fit.
pub const MAX_COLUMNS: usize = 8_192;
/// Maximum number of process rows of a snapshot.
pub const MAX_PROCESSES: usize = 200;
/// Maximum number of collector errors of a snapshot.
pub const MAX_COLLECTOR_ERRORS: usize = 64;
/// Maximum length of a dotted metric name.
pub const MAX_METRIC_NAME_BYTES: usize = 96;
/// Maximum length of an instance, for example a mount point or a device name.
pub const MAX_INSTANCE_BYTES: usize = 255;
/// Maximum length of a host name; the limit of DNS names.
pub const MAX_HOST_NAME_BYTES: usize = 253;
/// Maximum length of any other text of a snapshot.
pub const MAX_TEXT_BYTES: usize = 1_024;
/// Maximum time by which a snapshot may be ahead of the hub's clock.
pub const MAX_CLOCK_LEAD_MS: i64 = 60_000;
/// Earliest accepted timestamp (2020-01-01). PerfWatch did not exist before; an earlier time is
/// that of a clock which was never set.
pub const MIN_TIMESTAMP_MS: i64 = 1_577_836_800_000;
/// Maximum interval that a snapshot covers (one day).
pub const MAX_INTERVAL_MS: u32 = 86_400_000;
/// Maximum nesting depth of snapshot JSON.
pub const MAX_JSON_DEPTH: usize = 16;

/// Maximum number of hosts that a hub without accounts accepts: enough for a fleet, and a bound
/// for a script that posts new names in a loop.
pub const MAX_HOSTS: usize = 10_000;
/// Maximum number of hosts that an account or token creates by sending for them, fewer
/// than [`MAX_HOSTS`].
pub const MAX_HOSTS_PER_SENDER: usize = 8_192;
/// Maximum number of hosts that an account or token creates within an hour: a fleet at once.
pub const MAX_NEW_HOSTS_PER_HOUR: usize = 4_096;
/// Time in which all hosts that an account or a token created have the share of a single host, in
/// milliseconds: invented hosts do not reduce the shares of other hosts.
pub const NEW_HOST_PERIOD_MS: i64 = 7 * 86_400_000;
/// Maximum number of alerts of a host, in all phases: each filesystem and interface of the largest host has
/// some.
pub const MAX_ALERTS_PER_HOST: usize = 65_536;
/// Maximum number of entries in the timeline of an incident by a single account or token: comments, and changes of the
/// acknowledgment.
pub const MAX_INCIDENT_ENTRIES_PER_ACTOR: i64 = 200;
/// Maximum number of submissions of many values that are processed at a time, off the serving threads.
pub const MAX_LARGE_SUBMISSIONS: usize = 4;
/// Maximum number of renames of a host within an hour: each is recorded in the audit log.
pub const MAX_HOST_RENAMES_PER_HOUR: usize = 10;
/// Maximum number of process texts that a hub interns, about 100 bytes each.
pub const MAX_INTERNED_STRINGS: usize = 500_000;
/// Maximum number of shapes in memory. A host whose disks change at every tick evicts shapes but
/// does not exhaust memory.
pub const MAX_SHAPES: usize = 20_000;

/// Maximum number of concurrent reads of history: eight principals with their full share.
pub const MAX_READS: usize = 32;
/// Maximum number of concurrent reads of a principal. Most reads take milliseconds.
pub const MAX_READS_PER_PRINCIPAL: usize = 4;
/// Maximum number of waiting reads of a principal: a wall of ten screens that load at the same time.
pub const MAX_WAITING_READS: usize = 128;
/// Maximum memory of all reads of history and their responses.
pub const MAX_READ_BYTES: usize = 256 << 20;
/// Maximum memory of the reads of a principal: several charts of the largest host.
pub const MAX_READ_BYTES_PER_PRINCIPAL: usize = 64 << 20;
/// Maximum number of points of all series of a response: 600 points of 800 series.
pub const MAX_RESULT_POINTS: usize = 500_000;
/// Maximum number of series of a response, with the minimum of 10 points each.
pub const MAX_RESULT_SERIES: usize = MAX_RESULT_POINTS / 10;
/// Maximum number of stored values that a request decodes: an hour of raw rows of all 8,192 columns has half
/// as many.
pub const MAX_READ_CELLS: usize = 64 << 20;
/// Maximum time of a query over many hosts; the hosts that are left are not read.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum number of series of a query over many hosts in its response: more lines are not distinguishable.
pub const MAX_QUERY_SERIES: usize = 200;
/// Maximum number of points of series and groups that a query over many hosts has in memory: 24 hours of two
/// queries by host for 1,700 hosts.
pub const MAX_QUERY_POINTS: usize = 1_000_000;
/// Maximum number of saved views of an account.
pub const MAX_VIEWS_PER_ACCOUNT: usize = 100;
/// Maximum number of public status pages of a hub: all of them are in memory.
pub const MAX_STATUS_PAGES: usize = 100;
/// Maximum number of public status pages that an account answers for.
pub const MAX_STATUS_PAGES_PER_ACCOUNT: usize = 20;
/// Maximum number of hosts of a public status page.
pub const MAX_STATUS_PAGE_HOSTS: usize = 50;

/// Length of the recent window that the hub holds in memory.
pub const RECENT_WINDOW_MS: i64 = 300_000;
/// Maximum number of snapshots of a host in the recent window: 5 minutes at half a second.
pub const MAX_RECENT_SNAPSHOTS: usize = 600;
/// Maximum number of WebSocket clients of a hub.
pub const MAX_WEBSOCKET_CLIENTS: usize = 10_000;
/// Maximum number of WebSockets of an account: a wall of screens, or a thousand open pages.
pub const MAX_WEBSOCKETS_PER_ACCOUNT: usize = 1_024;
/// Maximum number of different selections that an account requests first. The dashboard has about ten.
pub const MAX_SELECTIONS_PER_ACCOUNT: usize = 64;
/// Units of work for messages of WebSocket clients that an account has at once: a message takes one, a backfill one
/// more per [`MAX_HOSTS_PER_MESSAGE_UNIT`] hosts. A thousand screens that reconnect send two messages each.
pub const MAX_CLIENT_MESSAGE_UNITS: u32 = 4_000;
/// Units that become free again per second.
pub const MAX_CLIENT_MESSAGE_UNITS_PER_SECOND: u32 = 200;
/// Hosts of a backfill that take one unit.
pub const MAX_HOSTS_PER_MESSAGE_UNIT: usize = 500;
/// Maximum number of agentless hosts that are polled at the same time because their page is open.
pub const MAX_POLLED_HOSTS: usize = 100;
/// Maximum number of them that an account has open first.
pub const MAX_POLLED_HOSTS_PER_ACCOUNT: usize = 25;
/// Maximum memory of the subscriptions of an account: 25 pages with all hosts of a fleet of 4,000.
pub const MAX_SUBSCRIPTION_BYTES_PER_ACCOUNT: usize = 16 << 20;
/// Maximum memory of the encodings that are cached for the selections of an account.
pub const MAX_ENCODING_BYTES_PER_ACCOUNT: usize = 16 << 20;
/// Maximum memory of the messages that clients of an account did not receive yet: five hundred clients that
/// receive a large host.
pub const MAX_UNSENT_BYTES_PER_ACCOUNT: usize = 32 << 20;
/// Maximum memory of all cached encodings.
pub const MAX_ENCODING_BYTES: usize = 64 << 20;
/// Maximum size of the recent snapshots of a host that a subscription receives first: five minutes of 2,048
/// cores every second.
pub const MAX_BACKFILL_BYTES: usize = 8 << 20;
/// Maximum number of accepted snapshots in the queue of a client before it receives `lagged`: 200 ms of 10,000
/// snapshots per second.
pub const MAX_QUEUED_SNAPSHOTS: usize = 2_048;
/// Maximum number of accepted snapshots per host in the queue of a client that receives some hosts.
pub const MAX_QUEUED_SNAPSHOTS_PER_HOST: usize = 16;
/// Maximum size of a message from a WebSocket client.
pub const MAX_CLIENT_MESSAGE_BYTES: usize = 64 << 10;
/// Maximum number of subscriptions per client.
pub const MAX_SUBSCRIPTIONS: usize = 16;
/// Maximum number of hosts or metrics per subscription.
pub const MAX_SELECTORS: usize = 10_000;
/// Maximum number of wildcard patterns among the metrics of a subscription: each is compared with all columns.
pub const MAX_SELECTOR_PATTERNS: usize = 64;
/// Maximum number of password hashes of an address that wait or run. A hash takes about 40 ms.
pub const MAX_PASSWORD_HASHES_PER_ADDRESS: usize = 16;
/// Maximum number of password hashes that wait or run.
pub const MAX_PASSWORD_HASHES: usize = 256;
/// Maximum number of test notifications that an account sends at once.
pub const MAX_CHANNEL_TEST_BURST: u32 = 20;

/// Maximum size of a file that a collector reads. `/proc/net/tcp` with 100,000 connections has
/// 15 MB; its collector skips the file long before.
pub const MAX_COLLECTED_FILE_BYTES: u64 = 16 << 20;
/// Maximum size of a capture: 5,000 processes take about 8 MB.
pub const MAX_CAPTURE_BYTES: usize = 64 << 20;
/// Maximum number of entries of a capture: 20,000 processes with five entries each, and the rest
/// of the host.
pub const MAX_CAPTURE_ENTRIES: usize = 150_000;
/// Maximum number of sockets at which TCP states are counted. Above, formatting the kernel's table
/// costs more than 10 ms.
pub const MAX_COUNTED_SOCKETS: u64 = 10_000;
/// Maximum length of a process's command line in characters; longer command lines are truncated.
pub const MAX_COMMAND_CHARS: usize = 200;
/// Maximum number of errors that a collector reports per reading.
pub const MAX_ERRORS_PER_COLLECTOR: usize = 8;

/// Maximum number of jobs that wait for the worker pool: 100 servers per worker may deliver captures at once.
pub const MAX_WAITING_JOBS: usize = 512;
/// Maximum number of jobs of a principal that wait for the worker pool.
pub const MAX_WAITING_JOBS_PER_PRINCIPAL: usize = 8;
/// Maximum number of concurrent connection tests; tests do not occupy workers of collections.
pub const MAX_CONNECTION_TESTS: usize = 50;
/// Maximum number of concurrent connection tests of a principal.
pub const MAX_CONNECTION_TESTS_PER_PRINCIPAL: usize = 3;
/// Number of connection tests that a principal may start at once.
pub const MAX_CONNECTION_TEST_BURST: u32 = 60;

/// Maximum number of audit log entries of security acts, and of all others: years of a large team.
pub const MAX_AUDIT_ENTRIES: i64 = 200_000;

/// Maximum number of shapes of a host that are new within an hour. A host whose containers start and stop
/// every five seconds needs 720.
pub const MAX_NEW_SHAPES_PER_HOUR: usize = 1_024;
/// Maximum number of columns of a host that are new within a day: 30 for each container that starts every five
/// seconds.
pub const MAX_NEW_COLUMNS_PER_DAY: usize = 64 * MAX_COLUMNS;
/// Part of the disk budget that the new shapes of a host may take at once, two shapes of the maximum size at
/// least.
pub const MAX_SHAPE_BURST_DIVISOR: u64 = 64;
/// Maximum size of the new shapes of a host at once, whatever the disk budget is.
pub const MAX_NEW_SHAPE_BYTES_BURST: u64 = 64 << 20;
/// Part of the disk budget that the new shapes of a host may take within an hour. They are merged when their
/// rows are sealed, and deleted.
pub const MAX_SHAPE_HOUR_DIVISOR: u64 = 20;
/// Size of the new shapes of a host within an hour that a small disk budget allows, too.
pub const MIN_NEW_SHAPE_BYTES_PER_HOUR: u64 = 16 << 20;
/// Maximum number of shapes in the blocks of a host: an hour of small blocks, and a shape per hour and day
/// of the retention.
pub const MAX_STORED_SHAPES: u64 = 4_096;
/// Share of the head that the unsealed rows of a host may take, in percent.
pub const MAX_HEAD_SHARE_PERCENT: u64 = 50;
/// Maximum size of the snapshots of a host in the recent window when they are decoded: 8,192 columns and 200
/// processes at one snapshot a second take 25 MB.
pub const MAX_RECENT_BYTES: usize = 32 << 20;
/// Maximum size of decoded snapshots of large hosts that reads of the recent window have at the same time.
pub const MAX_DECODED_RECENT_BYTES: usize = 256 << 20;
/// Maximum size of the snapshots in the recent window of the new hosts that an account or token created.
pub const MAX_NEW_HOSTS_RECENT_BYTES: usize = 128 << 20;
/// Maximum size of the recent window of all hosts: a fleet of 4,000 agents at one snapshot a second takes
/// 0.7 GB.
pub const MAX_RECENT_TOTAL_BYTES: usize = 2 << 30;
/// Part of the space left of the disk budget, in percent, that the rows of a host may take until the next
/// measurement.
pub const MAX_SPACE_SHARE_PERCENT: u64 = 50;
/// Size of rows that a host may send between two measurements although others took the space.
pub const MIN_SPACE_SHARE_BYTES: u64 = 256 << 10;
/// Use of the disk budget, in percent of its target, above which hosts above their share are refused.
pub const MAX_SHARED_USE_PERCENT: u64 = 94;
/// Use of the storage by a host, in percent of an equal share of all hosts, from which its data is deleted
/// before that of other hosts.
pub const MAX_EQUAL_SHARE_PERCENT: u64 = 125;

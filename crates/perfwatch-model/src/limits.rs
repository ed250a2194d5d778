//! Every cap on what may come from outside, in one place, each with its reason.

/// A request body as it arrives. 250 snapshots of a big host fit.
pub const MAX_BODY_BYTES: usize = 4 << 20;
/// A request body after decompression: a real batch compresses about 5 times, a bomb 1,000.
pub const MAX_DECOMPRESSED_BYTES: usize = 8 << 20;
/// The window a zstd stream may ask for (2^23 = 8 MiB): what a decoder must set aside.
pub const MAX_ZSTD_WINDOW_LOG: u32 = 23;
/// Snapshots in one request: back-fill in bites that the hub digests in a few milliseconds.
pub const MAX_BATCH_SNAPSHOTS: usize = 500;
/// One encoded snapshot: 8,192 columns and 200 processes have less.
pub const MAX_SNAPSHOT_BYTES: usize = 512 << 10;
/// The encoded columns of one shape: 8,192 with names of 120 bytes.
pub const MAX_SHAPE_BYTES: usize = 1 << 20;
/// Requests that are decompressed at one time.
pub const MAX_CONCURRENT_DECOMPRESSIONS: usize = 8;
/// What requests that are decoded or wait to be durable hold together, by their size after
/// decompression.
pub const MAX_DECODED_BYTES: usize = 64 << 20;
/// Columns of a snapshot: 128 cores, 200 disks and 200 mounts fit.
pub const MAX_COLUMNS: usize = 8_192;
/// Process rows of a snapshot.
pub const MAX_PROCESSES: usize = 200;
/// Collector errors of a snapshot.
pub const MAX_COLLECTOR_ERRORS: usize = 64;
/// A metric's dotted name.
pub const MAX_METRIC_NAME_BYTES: usize = 96;
/// An instance: a mount point or a long device name.
pub const MAX_INSTANCE_BYTES: usize = 255;
/// A host's name (a DNS name has 253).
pub const MAX_HOST_NAME_BYTES: usize = 253;
/// Any other text of a snapshot.
pub const MAX_TEXT_BYTES: usize = 1_024;
/// How far a snapshot may be ahead of the hub's clock before it is refused.
pub const MAX_CLOCK_LEAD_MS: i64 = 60_000;
/// Nothing was measured by PerfWatch before 2020; such a clock was never set.
pub const MIN_TIMESTAMP_MS: i64 = 1_577_836_800_000;
/// A snapshot stands for at most a day.
pub const MAX_INTERVAL_MS: u32 = 86_400_000;
/// JSON deeper than this is no snapshot.
pub const MAX_JSON_DEPTH: usize = 16;

/// Hosts a hub without accounts takes in: enough for a fleet, not for a loop gone wild.
pub const MAX_HOSTS: usize = 10_000;
/// Different texts of processes that a hub keeps once: about 100 bytes each.
pub const MAX_INTERNED_STRINGS: usize = 500_000;
/// Different shapes a hub keeps; a host that changes its disks every tick costs only itself.
pub const MAX_SHAPES: usize = 20_000;

/// What the hub keeps ready in memory.
pub const RECENT_WINDOW_MS: i64 = 300_000;
/// Snapshots a host may have in the live window (5 minutes at half a second).
pub const MAX_RECENT_SNAPSHOTS: usize = 600;
/// WebSocket clients of one hub.
pub const MAX_WEBSOCKET_CLIENTS: usize = 10_000;
/// Accepted snapshots that wait for the slowest reader before it is told `lagged`.
pub const BROADCAST_CAPACITY: usize = 1_024;
/// A message that a WebSocket client may send.
pub const MAX_CLIENT_MESSAGE_BYTES: usize = 64 << 10;
/// Subscriptions of one client.
pub const MAX_SUBSCRIPTIONS: usize = 16;
/// Hosts or metrics of one subscription.
pub const MAX_SELECTORS: usize = 10_000;

//! Limits of capsules, which the hub and all readers of the file share (docs/CAPSULE-FORMAT.md).

/// Maximum size of a file: it is built and opened in memory.
pub const MAX_FILE_BYTES: usize = 32 << 20;
/// Maximum size of a decompressed section.
pub const MAX_SECTION_BYTES: usize = 64 << 20;
/// Maximum size of all decompressed sections.
pub const MAX_CONTENT_BYTES: usize = 256 << 20;
/// Maximum size of the decompressed document.
pub const MAX_DOCUMENT_BYTES: usize = 16 << 20;
/// Maximum number of hosts.
pub const MAX_HOSTS: usize = 50;
/// Maximum length of the window.
pub const MAX_WINDOW_MS: i64 = 86_400_000;
/// Maximum number of rows of a host: a day at a row per second.
pub const MAX_ROWS: usize = 90_000;
/// Maximum number of series of a host.
pub const MAX_SERIES: usize = 16_384;
/// Maximum of rows × series of all hosts: an hour of 25 hosts with 300 series every two seconds.
pub const MAX_VALUES: usize = 16 << 20;
/// Maximum number of process rows of a host.
pub const MAX_PROCESS_ROWS: usize = 1 << 20;
/// Maximum number of processes and of their texts of a host.
pub const MAX_PROCESSES: usize = 1 << 16;
/// Maximum number of events and of alerts of a host, and of incidents.
pub const MAX_EVENTS: usize = 1_000;
/// Maximum length of a text in bytes: comments of incidents are the longest.
pub const MAX_TEXT_BYTES: usize = 16 << 10;

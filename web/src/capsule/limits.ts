// Limits of capsules: those of `crates/perfwatch-capsule/src/limits.rs` (docs/CAPSULE-FORMAT.md).
export const MAX_FILE_BYTES = 32 * 2 ** 20
export const MAX_SECTION_BYTES = 64 * 2 ** 20
export const MAX_CONTENT_BYTES = 256 * 2 ** 20
export const MAX_DOCUMENT_BYTES = 16 * 2 ** 20
export const MAX_HOSTS = 50
export const MAX_WINDOW_MS = 86_400_000
export const MAX_ROWS = 90_000
export const MAX_SERIES = 16_384
export const MAX_VALUES = 16 * 2 ** 20
export const MAX_PROCESS_ROWS = 2 ** 20
export const MAX_PROCESSES = 2 ** 16
export const MAX_EVENTS = 1_000
export const MAX_TEXT_BYTES = 16 * 2 ** 10

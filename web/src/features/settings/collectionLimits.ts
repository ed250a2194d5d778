// Limits of intervals, as the hub validates them.
export const MIN_INTERVAL_MS = 250
export const MAX_INTERVAL_MS = 3_600_000

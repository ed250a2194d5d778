import { clockShort, dateTime } from '../../lib/format'

/** Longest range whose times need no date: a day, and the step that it starts in. */
const MAX_CLOCK_RANGE_MS = 25 * 3_600_000

/** Time of a chart over a range, all in milliseconds. */
export function timeInRange(ms: number, rangeMs: number): string {
  return rangeMs > MAX_CLOCK_RANGE_MS ? dateTime(ms) : clockShort(ms)
}

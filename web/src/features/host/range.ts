// The stretch of time on screen, as the address says it: `?range=6h`, or `?from=…&to=…` in
// milliseconds; `&at=…` is an instant that was picked.
import type { LocationQuery, LocationQueryRaw } from 'vue-router'

export interface RangePreset {
  key: string
  label: string
  seconds: number
  /** Shown from what streams in, not from history. */
  live: boolean
}

export const RANGE_PRESETS: RangePreset[] = [
  { key: '1m', label: '1 min', seconds: 60, live: true },
  { key: '5m', label: '5 min', seconds: 300, live: true },
  { key: '15m', label: '15 min', seconds: 900, live: false },
  { key: '1h', label: '1 hour', seconds: 3_600, live: false },
  { key: '6h', label: '6 hours', seconds: 21_600, live: false },
  { key: '24h', label: '24 hours', seconds: 86_400, live: false },
  { key: '7d', label: '7 days', seconds: 7 * 86_400, live: false },
  { key: '30d', label: '30 days', seconds: 30 * 86_400, live: false },
]
const DEFAULT = RANGE_PRESETS[1]!

export interface Range {
  span: RangePreset
  /** Seconds since 1970; none while the range moves with the time. */
  fixed: { from: number; to: number } | null
  at: number | null
}

const seconds = (value: unknown): number | null => {
  const number = Number(typeof value === 'string' && value !== '' ? value : Number.NaN)
  return Number.isFinite(number) && number > 0 ? number / 1000 : null
}

export function fromQuery(query: LocationQuery): Range {
  const span = RANGE_PRESETS.find((one) => one.key === query.range) ?? DEFAULT
  const [from, to] = [seconds(query.from), seconds(query.to)]
  const fixed = from !== null && to !== null && from < to ? { from, to } : null
  return { span, fixed, at: seconds(query.at) }
}

export function toQuery(range: Range): LocationQueryRaw {
  const query: LocationQueryRaw = {}
  if (range.span.key !== DEFAULT.key) query.range = range.span.key
  if (range.fixed) {
    query.from = String(Math.round(range.fixed.from * 1000))
    query.to = String(Math.round(range.fixed.to * 1000))
  }
  if (range.at !== null) query.at = String(Math.round(range.at * 1000))
  return query
}

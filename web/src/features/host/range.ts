// Time range in the URL: `?range=6h`, or `?from=…&to=…` in Unix milliseconds; `&at=…` is the shown instant, `&span=…` the
// span of the time bar, `&compare=…` what the charts are compared with.
import type { LocationQuery, LocationQueryRaw } from 'vue-router'
import { hubNow } from '../../lib/hubClock'

export interface RangePreset {
  /** Value of the query parameter and key of the label in the catalog. */
  key: '1m' | '5m' | '15m' | '1h' | '6h' | '24h' | '7d' | '30d'
  seconds: number
  /** Whether the data comes from the live stream instead of history. */
  live: boolean
}

export const RANGE_PRESETS: readonly RangePreset[] = [
  { key: '1m', seconds: 60, live: true },
  { key: '5m', seconds: 300, live: true },
  { key: '15m', seconds: 900, live: false },
  { key: '1h', seconds: 3_600, live: false },
  { key: '6h', seconds: 21_600, live: false },
  { key: '24h', seconds: 86_400, live: false },
  { key: '7d', seconds: 7 * 86_400, live: false },
  { key: '30d', seconds: 30 * 86_400, live: false },
]

/** Preset of a URL without a range. */
export const DEFAULT_PRESET = presetOf('5m')

/** First preset of agentless hosts: their collection interval is minutes, so short ranges show few points. */
export const AGENTLESS_PRESET = presetOf('24h')

/** Spans of the time bar. */
export const SPANS = [
  { key: '6h', seconds: 21_600 },
  { key: '24h', seconds: 86_400 },
  { key: '7d', seconds: 7 * 86_400 },
  { key: '30d', seconds: 30 * 86_400 },
] as const
export type Span = (typeof SPANS)[number]
const DEFAULT_SPAN = SPANS[1]

/** Earlier times that charts can be compared with, by the value of the query parameter, in seconds. */
export const EARLIER = { day: 86_400, week: 7 * 86_400 } as const

/** Minimum width of the range around an instant, in seconds. */
export const MIN_AROUND_S = 1_800

export interface Range {
  preset: RangePreset
  /** Bounds in Unix seconds; null while the range moves with the time. */
  fixed: { from: number; to: number } | null
  /** Shown instant in Unix seconds. */
  at: number | null
  span: Span
  /** `day`, `week`, or the id of a host; empty for no comparison. */
  compare: string
}

/** Query parameters of a range; others belong to the page. */
const PARAMETERS = new Set(['range', 'from', 'to', 'at', 'span', 'compare'])

export function presetOf(key: RangePreset['key']): RangePreset {
  return RANGE_PRESETS.find((preset) => preset.key === key)!
}

/** Unix seconds of a query parameter in milliseconds; null if it is not a positive number. */
function parseSeconds(value: unknown): number | null {
  const number = Number(typeof value === 'string' && value !== '' ? value : Number.NaN)
  return Number.isFinite(number) && number > 0 ? number / 1000 : null
}

/** Range of a width around an instant, in Unix seconds, that ends now at the latest. */
export function around(at: number, width: number): { from: number; to: number } {
  const to = Math.max(Math.min(at + width / 2, hubNow() / 1000), at)
  return { from: to - width, to }
}

/** Range of a URL query, of a fallback preset without one. Invalid parameters are ignored. */
export function fromQuery(query: LocationQuery, fallback = DEFAULT_PRESET): Range {
  const preset = RANGE_PRESETS.find(({ key }) => key === query.range) ?? fallback
  const [from, to] = [parseSeconds(query.from), parseSeconds(query.to)]
  const at = parseSeconds(query.at)
  const stated = from !== null && to !== null && from < to ? { from, to } : null
  const fixed = stated ?? (at === null ? null : around(at, Math.max(preset.seconds, MIN_AROUND_S)))
  const span = SPANS.find(({ key }) => key === query.span) ?? DEFAULT_SPAN
  return { preset, fixed, at, span, compare: typeof query.compare === 'string' ? query.compare : '' }
}

/** URL query of a range, without parameters that have their default, and with `others` that are not of the range. */
export function toQuery(range: Range, others: LocationQuery = {}, fallback = DEFAULT_PRESET): LocationQueryRaw {
  const query: LocationQueryRaw = Object.fromEntries(Object.entries(others).filter(([key]) => !PARAMETERS.has(key)))
  if (range.preset.key !== fallback.key) query.range = range.preset.key
  if (range.fixed) {
    query.from = String(Math.round(range.fixed.from * 1000))
    query.to = String(Math.round(range.fixed.to * 1000))
  }
  if (range.at !== null) query.at = String(Math.round(range.at * 1000))
  if (range.span.key !== DEFAULT_SPAN.key) query.span = range.span.key
  if (range.compare) query.compare = range.compare
  return query
}

// Visible time range in the URL: `?range=6h`, or `?from=…&to=…` in Unix milliseconds; `&at=…` is a pinned time.
import type { LocationQuery, LocationQueryRaw } from 'vue-router'

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

export interface Range {
  preset: RangePreset
  /** Bounds in Unix seconds; null while the range moves with the time. */
  fixed: { from: number; to: number } | null
  /** Pinned time in Unix seconds. */
  at: number | null
}

export function presetOf(key: RangePreset['key']): RangePreset {
  return RANGE_PRESETS.find((preset) => preset.key === key)!
}

/** Unix seconds of a query parameter in milliseconds; null if it is not a positive number. */
function parseSeconds(value: unknown): number | null {
  const number = Number(typeof value === 'string' && value !== '' ? value : Number.NaN)
  return Number.isFinite(number) && number > 0 ? number / 1000 : null
}

/** Range of a URL query. Invalid parameters are ignored. */
export function fromQuery(query: LocationQuery): Range {
  const preset = RANGE_PRESETS.find(({ key }) => key === query.range) ?? DEFAULT_PRESET
  const [from, to] = [parseSeconds(query.from), parseSeconds(query.to)]
  const fixed = from !== null && to !== null && from < to ? { from, to } : null
  return { preset, fixed, at: parseSeconds(query.at) }
}

/** URL query of a range, without parameters that have their default. */
export function toQuery(range: Range): LocationQueryRaw {
  const query: LocationQueryRaw = {}
  if (range.preset.key !== DEFAULT_PRESET.key) query.range = range.preset.key
  if (range.fixed) {
    query.from = String(Math.round(range.fixed.from * 1000))
    query.to = String(Math.round(range.fixed.to * 1000))
  }
  if (range.at !== null) query.at = String(Math.round(range.at * 1000))
  return query
}

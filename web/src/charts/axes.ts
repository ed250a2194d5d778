// Ranges, ticks, labels and gaps of a chart's axes.
import type uPlot from 'uplot'
import { clock, clockShort, day, format, month, type Unit, year } from '../lib/format'
import { t } from '../i18n'
import { hubNow } from '../lib/hubClock'
import { wallDate } from '../lib/zone'
import type { Value } from '../live/columns'

/** Tick distances of the y axis: powers of two for bytes, 1-2-5 for other units. */
export function steps(unit: Unit): number[] {
  if (unit === 'bytes' || unit === 'bytes_per_second') return Array.from({ length: 56 }, (_, power) => 2 ** power)
  const out: number[] = []
  for (let power = -3; power < 12; power++) for (const step of [1, 2, 5]) out.push(step * 10 ** power)
  return out
}

/** Y range from zero to `max`, or to slightly above the largest value and `minSpan`, with a minimum span per unit. */
export function yRange(unit: Unit, max?: number, minSpan = 0): uPlot.Range.Function {
  return (_, smallest, largest) => {
    if (max) return [0, max]
    // Negative values only occur in mirrored charts.
    if ((smallest ?? 0) < 0 && unit !== 'celsius') {
      const top = Math.max(-smallest!, largest ?? 0, 1024, minSpan) * 1.08
      return [-top, top]
    }
    const value = Math.max(largest ?? 0, minSpan)
    const min = unit === 'percent' ? 1 : unit === 'bytes' || unit === 'bytes_per_second' ? 1024 : unit === 'celsius' ? 50 : 1
    const top = Math.max(value, min) * 1.08
    return [0, unit === 'percent' && value <= 100 ? Math.min(top, 100) : top]
  }
}

/** Label of a y tick, without trailing zeros. */
export function label(value: number, unit: Unit): string {
  if (value === 0) return unit === 'percent' ? '0%' : '0'
  return format(value, unit)
    .replace(/\.0+(?=\D|$)/, '')
    .replace(/(\.\d*?)0+(?=\D|$)/, '$1')
}

/** Label of a time tick; `spacing` is the distance between ticks in seconds. */
export function formatTick(ms: number, spacing: number): string {
  if (spacing < 60) return clock(ms)
  const at = wallDate(ms)
  if (spacing >= 300 * 86_400) return year(ms)
  if (spacing >= 25 * 86_400) return at.getUTCMonth() === 0 ? year(ms) : month(ms)
  return at.getUTCHours() + at.getUTCMinutes() === 0 ? day(ms) : clockShort(ms)
}

/** Whether rows are missing before the row at index `at`. */
export function isGap(times: ArrayLike<number>, steps: ArrayLike<number>, at: number): boolean {
  return at > 0 && times[at]! - times[at - 1]! > Math.min(steps[at]!, steps[at - 1]!) * 2.5
}

/** Time ranges without data between two row indices. */
export function gapsBetween(times: ArrayLike<number>, steps: ArrayLike<number>, from: number, to: number): [number, number][] {
  const gaps: [number, number][] = []
  for (let at = Math.max(1, from); at <= to; at++) if (isGap(times, steps, at)) gaps.push([times[at - 1]!, times[at]!])
  return gaps
}

/** Gaps in ascending order with overlaps merged, as uPlot's clip path requires. */
export function merged(gaps: [number, number][]): [number, number][] {
  const out: [number, number][] = []
  for (const [from, to] of gaps.sort((a, b) => a[0] - b[0])) {
    const last = out.at(-1)
    if (last && from <= last[1]) last[1] = Math.max(last[1], to)
    else out.push([from, to])
  }
  return out
}

/** Time range of a live chart: the last `window` seconds, less for a new host, at least one minute. */
export function liveRange(times: ArrayLike<number>, window: number): [number, number] {
  const last = times[times.length - 1] ?? hubNow() / 1000
  const first = times[0] ?? last
  return [Math.max(last - window, Math.min(first, last - 60)), last]
}

/** Distances of time ticks in seconds. */
const TIME_STEPS = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 432_000, 864_000,
]

/** Times of at most `count` ticks in Unix seconds, at round local times, and their distance. */
export function timeTicks(from: number, to: number, count: number): { ticks: number[]; spacing: number } {
  const spacing = TIME_STEPS.find((step) => (to - from) / step <= count) ?? TIME_STEPS.at(-1)!
  const offset = from - wallDate(from * 1000).getTime() / 1000
  const ticks: number[] = []
  for (let tick = Math.ceil((from - offset) / spacing) * spacing + offset; tick <= to; tick += spacing) ticks.push(tick)
  return { ticks, spacing }
}

/** Values with the opposite sign. */
export const negated = (column: Value[]): Value[] => column.map((value) => (value === null ? null : -value))

/** Cumulative sums from the bottom up. A missing value adds nothing; a row without values is a gap. */
export function stack(columns: Value[][], rows: number): Value[][] {
  const sum: Value[] = Array.from({ length: rows }, () => null)
  return columns.map((column) => {
    for (let row = 0; row < rows; row++) {
      const value = column[row]
      if (value !== null && value !== undefined) sum[row] = (sum[row] ?? 0) + value
    }
    return sum.slice()
  })
}

/** Smallest and largest value of a series within a time range, as text. */
export function summaryText(
  series: string,
  values: readonly (number | null)[],
  times: ArrayLike<number>,
  bounds: [number, number],
  unit: Unit,
) {
  let [least, most] = [Infinity, -Infinity]
  values.forEach((value, row) => {
    if (value === null || times[row]! < bounds[0] || times[row]! > bounds[1]) return
    least = Math.min(least, value)
    most = Math.max(most, value)
  })
  return least > most ? t('charts.noValues') : t('charts.summary', { series, least: format(least, unit), most: format(most, unit) })
}

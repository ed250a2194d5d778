// Bars of a backtest: firings by hour or by day, in the time zone of the page; and whether it evaluated anything.
import type { Backtest, Rule } from '../../api/types'
import { dateFormat, day } from '../../lib/format'
import { startOfDay, wallDate } from '../../lib/zone'
import type { BacktestRange } from './useBacktest'

const HOUR_MS = 3_600_000

export interface FiringBar {
  fromMs: number
  count: number
  /** Text below the bar; empty for bars without a label. */
  label: string
}

const HOUR = dateFormat({ hour: '2-digit' })
const WEEKDAY = dateFormat({ weekday: 'short' })

/** Conditions that need values: the others fire without any. */
const VALUE_KINDS = ['threshold', 'change', 'forecast']

/** Whether a backtest evaluated nothing, so that it does not mean that the rule would not have fired. */
export function isUntested({ condition }: Rule, { hosts }: Backtest): boolean {
  return VALUE_KINDS.includes(condition.kind) && hosts.every((host) => host.value_count === 0)
}

/** Start of the hour or of the day that is `steps` before the one that contains a time. */
function startOf(ms: number, isHourly: boolean, steps: number): number {
  // Days have 23 to 25 hours.
  if (!isHourly) return startOfDay(ms, -steps)
  const wall = wallDate(ms).getTime()
  return ms - (wall % HOUR_MS) - steps * HOUR_MS
}

function labelOf(ms: number, range: BacktestRange, fromEnd: number): string {
  if (range === '-7d') return WEEKDAY.format(ms)
  if (range === '-24h') return fromEnd % 4 === 0 ? HOUR.format(ms) : ''
  return fromEnd % 7 === 0 ? day(ms) : ''
}

/** Bars from the start to the end of a backtest. The first one may begin before it. */
export function firingBars(firedMs: readonly number[], toMs: number, range: BacktestRange): FiringBar[] {
  const isHourly = range === '-24h'
  const last = isHourly ? 24 : Number(range.slice(1, -1))
  const bars = Array.from({ length: last + 1 }, (_, at) => {
    const fromMs = startOf(toMs - 1, isHourly, last - at)
    return { fromMs, count: 0, label: labelOf(fromMs, range, last - at) }
  })
  for (const ms of firedMs) {
    const bar = bars.filter(({ fromMs }) => fromMs <= ms).at(-1)
    if (bar) bar.count++
  }
  return bars
}

export function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? null
}

/** Step of a value that is dragged over a span: a hundredth of it, rounded to a power of ten. */
export const dragStep = (span: number) => 10 ** (Math.floor(Math.log10(Math.max(span, 1e-6))) - 2)

/** Value on the grid of a step, without the noise of binary fractions. */
export const onGrid = (value: number, step: number) => Number((Math.round(value / step) * step).toPrecision(12))

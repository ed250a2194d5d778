// Ticks and labels of a chart's axes, by unit.
import type uPlot from 'uplot'
import { clock, clockShort, day, format, month, type Unit, year } from '../lib/format'

/** Steps that read well: powers of two for bytes, 1-2-5 for the rest. */
export function steps(unit: Unit): number[] {
  if (unit === 'bytes' || unit === 'bytes_per_second') return Array.from({ length: 56 }, (_, power) => 2 ** power)
  const out: number[] = []
  for (let power = -3; power < 12; power++) for (const step of [1, 2, 5]) out.push(step * 10 ** power)
  return out
}

/** From zero to a bit above the largest value, or a line across; never a flat line at the top of nothing. */
export function yRange(unit: Unit, most?: number, across = 0): uPlot.Range.Function {
  return (_, __, largest) => {
    const max = Math.max(largest ?? 0, across)
    if (most) return [0, most]
    const least = unit === 'percent' ? 1 : unit === 'bytes' || unit === 'bytes_per_second' ? 1024 : unit === 'celsius' ? 50 : 1
    const top = Math.max(max, least) * 1.08
    return [0, unit === 'percent' && max <= 100 ? Math.min(top, 100) : top]
  }
}

export function label(value: number, unit: Unit): string {
  if (value === 0) return unit === 'percent' ? '0%' : '0'
  return format(value, unit)
    .replace(/\.0+(?=\D|$)/, '')
    .replace(/(\.\d*?)0+(?=\D|$)/, '$1')
}

/** A tick of the time axis, by how far apart ticks are, seconds. */
export function moments(ms: number, apart: number): string {
  if (apart < 60) return clock(ms)
  const at = new Date(ms)
  if (apart >= 300 * 86_400) return year(ms)
  if (apart >= 25 * 86_400) return at.getMonth() === 0 ? year(ms) : month(ms)
  return at.getHours() + at.getMinutes() === 0 ? day(ms) : clockShort(ms)
}

/** Whether a row follows so late on the one before it that something is missing between. */
export function isGap(times: ArrayLike<number>, steps: ArrayLike<number>, at: number): boolean {
  return at > 0 && times[at]! - times[at - 1]! > Math.min(steps[at]!, steps[at - 1]!) * 2.5
}

/** Stretches without data. */
export function gapsBetween(times: ArrayLike<number>, steps: ArrayLike<number>, from: number, to: number): [number, number][] {
  const gaps: [number, number][] = []
  for (let at = Math.max(1, from); at <= to; at++) if (isGap(times, steps, at)) gaps.push([times[at - 1]!, times[at]!])
  return gaps
}

/** Sorted and without overlaps, as a clip path needs them. */
export function merged(gaps: [number, number][]): [number, number][] {
  const out: [number, number][] = []
  for (const [from, to] of gaps.sort((a, b) => a[0] - b[0])) {
    const last = out.at(-1)
    if (last && from <= last[1]) last[1] = Math.max(last[1], to)
    else out.push([from, to])
  }
  return out
}

/** The newest `window` seconds; a host that is new gets less, but a minute at least. */
export function liveRange(times: ArrayLike<number>, window: number): [number, number] {
  const last = times[times.length - 1] ?? Date.now() / 1000
  const first = times[0] ?? last
  return [Math.max(last - window, Math.min(first, last - 60)), last]
}

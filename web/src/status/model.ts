// What the public status page shows of an answer: states of days, texts of times. Pure.
import type { components } from '../api/schema'

export type Status = components['schemas']['PublicStatusResponse']
export type StatusHost = components['schemas']['PublicHost']
export type State = components['schemas']['PublicState']
/** Seconds of a day: up, down, in maintenance, unknown; null while it is being computed. */
export type Day = readonly number[] | null
export type DayState = 'up' | 'part' | 'down' | 'maintenance' | 'unknown' | 'none' | 'computing'

const DAY_MS = 86_400_000

/** State that a day is shown with: downtime counts before maintenance, and both before unknown time. Before the first data of
 * a host, it has none of them. */
export function dayState(day: Day): DayState {
  if (!day) return 'computing'
  const [up = 0, down = 0, maintenance = 0, unknown = 0] = day
  if (down > 0) return down >= up ? 'down' : 'part'
  if (maintenance > 0) return 'maintenance'
  if (up + unknown === 0) return 'none'
  return up > unknown ? 'up' : 'unknown'
}

/** Lines through the values of a chart of height 1, top down; a gap ends a line. */
export function linePath(values: readonly (number | null)[], max: number): string {
  const point = (value: number | null, index: number) =>
    value === null ? '' : `${typeof values[index - 1] === 'number' ? 'L' : 'M'}${index} ${(1 - Math.min(value / max, 1)).toFixed(3)}`
  return values.map(point).join('')
}

/** Date of a day in UTC; the last day is that of `nowMs`. */
export const dateOf = (index: number, count: number, nowMs: number) => new Date(nowMs - (count - 1 - index) * DAY_MS)

/** Length of a time: `12 min`, `1 h 04 min`, `3 d`. */
export function duration(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  if (hours >= 24) return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${hours / 24} d`
  return minutes % 60 ? `${hours} h ${String(minutes % 60).padStart(2, '0')} min` : `${hours} h`
}

/** Percent that never rounds up to 100. */
export const percent = (value: number) => `${value === 100 ? '100' : (Math.floor(value * 100) / 100).toFixed(2)}%`

/** Bytes per second in decimal units. */
export function byteRate(value: number): string {
  const units = ['B/s', 'kB/s', 'MB/s', 'GB/s']
  let unit = 0
  while (value >= 1_000 && unit < units.length - 1) {
    value /= 1_000
    unit += 1
  }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`
}

const FORMAT = { timeZone: 'UTC', hourCycle: 'h23' } as const
const dates = new Intl.DateTimeFormat('en-US', { ...FORMAT, day: 'numeric', month: 'short', year: 'numeric' })
const times = new Intl.DateTimeFormat('en-US', { ...FORMAT, hour: '2-digit', minute: '2-digit' })
const dayAndTime = new Intl.DateTimeFormat('en-US', { ...FORMAT, day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' })

export const date = (ms: number | Date) => dates.format(ms)

/** Time in UTC, with the day if it is not that of `nowMs`. */
export function time(ms: number, nowMs: number): string {
  const sameDay = Math.floor(ms / DAY_MS) === Math.floor(nowMs / DAY_MS)
  return `${(sameDay ? times : dayAndTime).format(ms)} UTC`
}

/** Text with its arguments. */
export function fill(text: string, args: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/g, (_, name: string) => String(args[name] ?? ''))
}

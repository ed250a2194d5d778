// Time zone in which times are shown and typed: the zone of the browser, or the one chosen in the settings. It holds for the
// whole page: another choice loads the page again.
import { readStored } from './theme'

export const ZONE_KEY = 'zone'

const formats = new Map<string, Intl.DateTimeFormat>()

function formatOf(timeZone: string): Intl.DateTimeFormat {
  let format = formats.get(timeZone)
  if (!format) {
    const two = '2-digit'
    const options = { year: 'numeric', month: two, day: two, hour: two, minute: two, second: two, hourCycle: 'h23' } as const
    format = new Intl.DateTimeFormat('en-US', { ...options, timeZone })
    formats.set(timeZone, format)
  }
  return format
}

/** Name of a stored zone; undefined for the zone of the browser, and for a name that the browser does not know. */
function validZone(name: unknown): string | undefined {
  try {
    return typeof name === 'string' && formatOf(name) ? name : undefined
  } catch {
    return undefined
  }
}

/** Chosen IANA zone; undefined for the zone of the browser. */
export const zone = validZone(readStored(ZONE_KEY))

export const browserZone = () => Intl.DateTimeFormat().resolvedOptions().timeZone

/** IANA name of the zone in which times are shown. */
export const zoneName = () => zone ?? browserZone()

/** Date whose UTC parts are what the clocks of a zone show at a time. */
export function wallDate(ms: number, timeZone = zone): Date {
  if (!timeZone) return new Date(ms - new Date(ms).getTimezoneOffset() * 60_000)
  const part = Object.fromEntries(
    formatOf(timeZone)
      .formatToParts(ms)
      .map(({ type, value }) => [type, Number(value)]),
  )
  return new Date(Date.UTC(part.year!, part.month! - 1, part.day, part.hour, part.minute, part.second))
}

/** Time at which the clocks of a zone show a wall time, in the form of `wallDate`. At a change of the clocks, one of both times. */
export function fromWall(wallMs: number, timeZone = zone): number {
  if (Number.isNaN(wallMs)) return NaN
  const guess = wallMs - (wallDate(wallMs, timeZone).getTime() - wallMs)
  return guess - (wallDate(guess, timeZone).getTime() - wallMs)
}

/** Value of an `<input type="datetime-local">`, which has no zone, with seconds: 2026-11-28T16:34:10. */
export const toDateTimeInput = (ms: number) => wallDate(ms).toISOString().slice(0, 19)

/** Time of such a value; NaN if it is empty. */
export const fromDateTimeInput = (text: string) => fromWall(Date.parse(`${text}Z`))

/** Midnight of the day that contains a time, or of a day before or after it. */
export function startOfDay(ms: number, days = 0): number {
  const wall = wallDate(ms)
  return fromWall(Date.UTC(wall.getUTCFullYear(), wall.getUTCMonth(), wall.getUTCDate() + days))
}

export const isSameDay = (ms: number, otherMs: number) => startOfDay(ms) === startOfDay(otherMs)

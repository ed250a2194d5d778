// Display of numbers, durations and times: units from the metric catalog, times in the zone of the page.
import { wallDate, zone } from './zone'

export type Unit =
  | 'percent'
  | 'bytes'
  | 'bytes_per_second'
  | 'bits_per_second'
  | 'per_second'
  | 'count'
  | 'milliseconds'
  | 'seconds'
  | 'celsius'
  | 'megahertz'
  | 'rpm'

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']
const DECIMAL = ['', 'k', 'M', 'G', 'T', 'P']

function scaled(value: number, step: number, units: string[]): [string, string] {
  let unit = 0
  let size = Math.abs(value)
  while (size >= step * 0.9995 && unit + 1 < units.length) {
    size /= step
    unit++
  }
  const digits = unit === 0 && step === 1024 ? 0 : size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2
  return [(value < 0 ? '-' : '') + size.toFixed(digits), units[unit]!]
}

/** Formatted number and its unit, separately, so that the unit can be styled. */
export function parts(value: number | null | undefined, unit: Unit): [string, string] {
  if (value === null || value === undefined || !Number.isFinite(value)) return ['–', '']
  switch (unit) {
    case 'percent':
      return [value.toFixed(Math.abs(value) >= 99.95 ? 0 : 1), '%']
    case 'bytes':
      return scaled(value, 1024, BINARY)
    case 'bytes_per_second': {
      const [number, name] = scaled(value, 1024, BINARY)
      return [number, `${name}/s`]
    }
    case 'bits_per_second': {
      const [number, name] = scaled(value, 1000, DECIMAL)
      return [number, `${name}bit/s`]
    }
    case 'seconds':
      return Math.abs(value) >= 59.95
        ? [(value < 0 ? '-' : '') + duration(Math.round(Math.abs(value))), '']
        : [value.toFixed(Number.isInteger(value) ? 0 : 2), 's']
    case 'rpm':
      return [value.toFixed(0), 'rpm']
    case 'milliseconds':
      if (Math.abs(value) >= 59_950) return [(value < 0 ? '-' : '') + duration(Math.round(Math.abs(value) / 1000)), '']
      return Math.abs(value) >= 1000 ? [(value / 1000).toFixed(2), 's'] : [value.toFixed(Math.abs(value) >= 10 ? 0 : 2), 'ms']
    case 'celsius':
      return [value.toFixed(0), '°C']
    case 'megahertz':
      return Math.abs(value) >= 1000 ? [(value / 1000).toFixed(2), 'GHz'] : [value.toFixed(0), 'MHz']
    case 'per_second':
    case 'count': {
      const suffix = unit === 'per_second' ? '/s' : ''
      if (Math.abs(value) < 10_000)
        return [Number.isInteger(value) ? String(value) : value.toFixed(Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2), suffix]
      const [number, name] = scaled(value, 1000, DECIMAL)
      return [number, name + suffix]
    }
  }
}

export function format(value: number | null | undefined, unit: Unit): string {
  const [number, name] = parts(value, unit)
  return name === '' ? number : name === '%' ? `${number}${name}` : `${number} ${name}`
}

/** Two values of one unit: "0.12 / 3.40 ms"; both units are written if the scales differ. */
export function pair(a: number | null, b: number | null, unit: Unit): string {
  const [left, right] = [parts(a, unit), parts(b, unit)]
  return left[1] === right[1] ? `${left[0]} / ${format(b, unit)}` : `${format(a, unit)} / ${format(b, unit)}`
}

/** Seconds as text with at most two units: 5 → "5 s", 3700 → "1 h 1 min", 200000 → "2 d 7 h". */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '–'
  const s = Math.max(0, Math.floor(seconds))
  if (s < 60) return `${s} s`
  const units: [number, string][] = [
    [86400, 'd'],
    [3600, 'h'],
    [60, 'min'],
    [1, 's'],
  ]
  const first = units.findIndex(([size]) => s >= size)
  const [size, name] = units[first]!
  const next = units[first + 1]
  const remainder = next ? Math.floor((s % size) / next[0]) : 0
  return `${Math.floor(s / size)} ${name}${remainder && next ? ` ${remainder} ${next[1]}` : ''}`
}

const TWO = '2-digit'
/** Format of dates in the zone of the page. */
export const dateFormat = (options: Intl.DateTimeFormatOptions) =>
  new Intl.DateTimeFormat(undefined, { timeZone: zone, hourCycle: 'h23', ...options })
const SECONDS = dateFormat({ hour: TWO, minute: TWO, second: TWO })
const MINUTES = dateFormat({ hour: TWO, minute: TWO })
const DAY = dateFormat({ day: 'numeric', month: 'short' })
const MONTH = dateFormat({ month: 'short' })
const WEEKDAY_DATE = dateFormat({ weekday: 'short', day: 'numeric', month: 'short', year: 'numeric' })
const DATE_TIME = dateFormat({ dateStyle: 'medium', timeStyle: 'medium' })

/** Time of day with seconds, such as 09:05:07. */
export const clock = (ms: number) => SECONDS.format(ms)

/** Time of day without seconds, such as 09:05. */
export const clockShort = (ms: number) => MINUTES.format(ms)

/** Day and month, such as 21 Nov. */
export const day = (ms: number) => DAY.format(ms)

/** Abbreviated month name, such as Nov. */
export const month = (ms: number) => MONTH.format(ms)

/** Four-digit year. */
export const year = (ms: number) => String(wallDate(ms).getUTCFullYear())

/** Date with its day of the week, such as Sat, 21 Nov 2026. */
export const weekdayDate = (ms: number) => WEEKDAY_DATE.format(ms)

/** Date and time of day with seconds. */
export const dateTime = (ms: number) => DATE_TIME.format(ms)

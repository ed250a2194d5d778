// Typed times: `14:30`, `yesterday 14:30`, `-6h`, `2026-11-28 14:30`, Unix seconds or milliseconds.
import { fromWall, wallDate } from './zone'

const UNITS: Record<string, number> = { s: 1_000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000, w: 7 * 86_400_000 }
const DAY_MS = 86_400_000

/** Time of day of the local day that contains `dayMs`. */
function timeOfDay(dayMs: number, hours: number, minutes: number, seconds: number): number | null {
  if (hours > 23 || minutes > 59 || seconds > 59) return null
  const day = wallDate(dayMs)
  return fromWall(Date.UTC(day.getUTCFullYear(), day.getUTCMonth(), day.getUTCDate(), hours, minutes, seconds))
}

/** Unix milliseconds of a typed time; null if the text is not a time. Times without a day are in the past. */
export function parseTime(text: string, nowMs: number): number | null {
  const input = text.trim().toLowerCase()
  const relative = /^(?:-\s*)?(\d+)\s*(s|min|m|h|d|w)(?:\s+ago)?$/.exec(input)
  if (relative && (input.startsWith('-') || input.endsWith('ago'))) return nowMs - Number(relative[1]) * UNITS[relative[2]!]!
  const clock = /^(?:(today|yesterday)\s+(?:at\s+)?)?(\d{1,2}):(\d{2})(?::(\d{2}))?$/.exec(input)
  if (clock) {
    const [, day, hours, minutes, seconds = '0'] = clock
    const numbers = [Number(hours), Number(minutes), Number(seconds)] as const
    const today = timeOfDay(day === 'yesterday' ? nowMs - DAY_MS : nowMs, ...numbers)
    return today !== null && day === undefined && today > nowMs ? timeOfDay(nowMs - DAY_MS, ...numbers) : today
  }
  if (/^\d{10}$/.test(input)) return Number(input) * 1_000
  if (/^\d{13}$/.test(input)) return Number(input)
  if (!/^\d{4}-\d{2}-\d{2}/.test(input)) return null
  const time = text.trim().replace(' ', 'T')
  const isZoned = /(?:z|[+-]\d{2}:?\d{2})$/i.test(time.slice(10))
  const parsed = Date.parse(isZoned ? time : `${time.length === 10 ? `${time}T00:00` : time}Z`)
  if (Number.isNaN(parsed)) return null
  return isZoned ? parsed : fromWall(parsed)
}

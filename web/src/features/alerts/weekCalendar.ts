// Silences as events of a week in the time zone of the page: one-off silences from start to end, weekly windows in
// the time zone of their own.
import type { SilenceRow, WeeklyWindow } from '../../api/types'
import { fromWall, startOfDay, wallDate } from '../../lib/zone'
import { DAYS } from './display'

export const DAY_MS = 86_400_000
const MINUTE_MS = 60_000

/** Part of a silence within a day. */
export interface CalendarEvent {
  row: SilenceRow
  /** Hours since midnight of the day, with fractions. */
  fromHour: number
  toHour: number
  /** Column among events at the same time, and their number. */
  column: number
  columns: number
}

export interface CalendarDay {
  date: Date
  events: CalendarEvent[]
}

interface Period {
  fromMs: number
  toMs: number
}

/** Monday of the week of a time, at midnight. */
export const weekStart = (ms: number) => new Date(startOfDay(ms, -((wallDate(ms).getUTCDay() + 6) % 7)))

export const addDays = (date: Date, days: number) => new Date(startOfDay(date.getTime(), days))

const minutesOf = (time: string) => {
  const [hours = 0, minutes = 0] = time.split(':').map(Number)
  return hours * 60 + minutes
}

/** Periods of a weekly window that overlap a range. */
function weeklyPeriods(window: WeeklyWindow, fromMs: number, toMs: number): Period[] {
  const zone = window.timezone || 'UTC'
  const [from, to] = [minutesOf(window.from), minutesOf(window.to)]
  const days = new Set(window.days)
  const periods: Period[] = []
  // A day of the zone may begin before the range and end in it.
  for (let day = Math.floor(wallDate(fromMs, zone).getTime() / DAY_MS) - 1; day * DAY_MS < wallDate(toMs, zone).getTime(); day++) {
    // 1970 began on a Thursday.
    if (days.size && !days.has(DAYS[(((day + 3) % 7) + 7) % 7]!)) continue
    const start = day * DAY_MS + from * MINUTE_MS
    const end = day * DAY_MS + to * MINUTE_MS + (to > from ? 0 : DAY_MS)
    periods.push({ fromMs: fromWall(start, zone), toMs: fromWall(end, zone) })
  }
  return periods.filter((period) => period.fromMs < toMs && period.toMs > fromMs)
}

/** Periods of a silence that overlap a range. */
export function silencePeriods({ silence }: SilenceRow, fromMs: number, toMs: number): Period[] {
  const { starts_ms: startsMs, ends_ms: endsMs, weekly } = silence
  const bounds = { fromMs: Math.max(fromMs, startsMs), toMs: Math.min(toMs, endsMs ?? toMs) }
  if (bounds.fromMs >= bounds.toMs) return []
  if (!weekly) return [bounds]
  return weeklyPeriods(weekly, bounds.fromMs, bounds.toMs).map((period) => ({
    fromMs: Math.max(period.fromMs, bounds.fromMs),
    toMs: Math.min(period.toMs, bounds.toMs),
  }))
}

/** Events side by side: each takes the first column that is free. */
function arrange(events: CalendarEvent[]): CalendarEvent[] {
  const sorted = [...events].sort((a, b) => a.fromHour - b.fromHour || b.toHour - a.toHour)
  let group: CalendarEvent[] = []
  let groupEnd = 0
  const close = () => {
    const columns = Math.max(0, ...group.map(({ column }) => column + 1))
    for (const event of group) event.columns = columns
    group = []
  }
  for (const event of sorted) {
    if (event.fromHour >= groupEnd) close()
    const taken = new Set(group.filter(({ toHour }) => toHour > event.fromHour).map(({ column }) => column))
    while (taken.has(event.column)) event.column++
    group.push(event)
    groupEnd = Math.max(groupEnd, event.toHour)
  }
  close()
  return sorted
}

/** Days of the week that begins at `start`, with the events of the silences. */
export function calendarWeek(rows: readonly SilenceRow[], start: Date): CalendarDay[] {
  return Array.from({ length: 7 }, (_, day) => {
    const [date, next] = [addDays(start, day), addDays(start, day + 1)]
    const [fromMs, toMs] = [date.getTime(), next.getTime()]
    // A day with a change of the clocks has 23 or 25 hours; the calendar shows 24.
    const hourOf = (ms: number) => (24 * (ms - fromMs)) / (toMs - fromMs)
    const events = rows.flatMap((row) =>
      silencePeriods(row, fromMs, toMs).map((period) => ({
        row,
        fromHour: hourOf(period.fromMs),
        toHour: hourOf(period.toMs),
        column: 0,
        columns: 1,
      })),
    )
    return { date, events: arrange(events) }
  })
}

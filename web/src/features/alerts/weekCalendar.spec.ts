import { describe, expect, it } from 'vitest'
import type { SilenceRow, WeeklyWindow } from '../../api/types'
import { addDays, calendarWeek, silencePeriods, weekStart } from './weekCalendar'

const MONDAY = new Date(2026, 10, 23)
const timeOf = (day: number, hour: number, minute = 0) => new Date(2026, 10, day, hour, minute).getTime()
const row = (starts_ms: number, ends_ms: number | null, weekly: WeeklyWindow | null = null): SilenceRow => ({
  silence: { id: String(starts_ms), matcher: {}, comment: '', created_by: '', created_ms: 0, starts_ms, ends_ms, weekly },
  active: false,
  expired: false,
  held_back: 0,
})
const eventHours = (rows: SilenceRow[]) =>
  calendarWeek(rows, MONDAY).map(({ events }) => events.map(({ fromHour, toHour }) => [fromHour, toHour]))

describe('weekStart', () => {
  it('is the Monday before', () => {
    expect(weekStart(timeOf(29, 23)).getTime()).toBe(MONDAY.getTime())
    expect(weekStart(timeOf(23, 0)).getTime()).toBe(MONDAY.getTime())
    expect(addDays(MONDAY, 7).getDate()).toBe(30)
  })
})

describe('calendarWeek', () => {
  it('splits a silence at midnight and ends it at the end of the week', () => {
    expect(eventHours([row(timeOf(27, 22), timeOf(28, 2, 30))])).toEqual([[], [], [], [], [[22, 24]], [[0, 2.5]], []])
    expect(eventHours([row(timeOf(29, 12), null)])[6]).toEqual([[12, 24]])
    expect(eventHours([row(timeOf(1, 0), timeOf(2, 0))]).flat()).toEqual([])
  })

  it('puts overlapping events side by side', () => {
    const [monday] = calendarWeek(
      [row(timeOf(23, 8), timeOf(23, 12)), row(timeOf(23, 10), timeOf(23, 14)), row(timeOf(23, 12), timeOf(23, 13))],
      MONDAY,
    )
    expect(monday!.events.map(({ column, columns }) => [column, columns])).toEqual([
      [0, 2],
      [1, 2],
      [0, 2],
    ])
  })
})

describe('silencePeriods', () => {
  const utc = (day: number, hour: number, minute = 0) => Date.UTC(2026, 10, day, hour, minute)
  const weekly = (over: Partial<WeeklyWindow>): WeeklyWindow => ({
    days: ['wed'],
    from: '22:30',
    to: '01:30',
    timezone: 'Europe/Berlin',
    ...over,
  })
  const periods = (window: WeeklyWindow, from = utc(23, 0), to = utc(30, 0)) =>
    silencePeriods(row(0, null, window), from, to).map(({ fromMs, toMs }) => [new Date(fromMs).toISOString(), new Date(toMs).toISOString()])

  it('computes a weekly window in its own zone', () => {
    expect(periods(weekly({}))).toEqual([['2026-11-25T21:30:00.000Z', '2026-11-26T00:30:00.000Z']])
    expect(periods(weekly({ timezone: 'Pacific/Auckland' }))).toEqual([['2026-11-25T09:30:00.000Z', '2026-11-25T12:30:00.000Z']])
    expect(periods(weekly({ days: [], from: '02:00', to: '04:00', timezone: '' })).length).toBe(7)
  })

  it('follows the change of the clocks', () => {
    const daily = weekly({ days: [], from: '06:00', to: '07:00' })
    const starts = periods(daily, Date.UTC(2026, 9, 24), Date.UTC(2026, 9, 27)).map(([from]) => from)
    expect(starts).toEqual(['2026-10-24T04:00:00.000Z', '2026-10-25T05:00:00.000Z', '2026-10-26T05:00:00.000Z'])
  })

  it('is limited to the time of the silence', () => {
    const limited = row(utc(25, 22), utc(25, 23), weekly({}))
    expect(silencePeriods(limited, utc(23, 0), utc(30, 0))).toEqual([{ fromMs: utc(25, 22), toMs: utc(25, 23) }])
  })
})

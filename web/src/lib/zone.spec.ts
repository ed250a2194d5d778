import { afterEach, describe, expect, it, vi } from 'vitest'

const parse = (text: string) => Date.parse(text)

async function load(name: string | null) {
  localStorage.clear()
  if (name !== null) localStorage.setItem('perfwatch.zone', name)
  vi.resetModules()
  return import('./zone')
}

afterEach(() => localStorage.clear())

describe('zone', () => {
  it.each([
    ['UTC', '2026-11-28T12:00:00Z', '2026-11-28T12:00:00.000Z'],
    ['Asia/Kolkata', '2026-11-28T20:00:00Z', '2026-11-29T01:30:00.000Z'],
    ['America/New_York', '2026-07-01T02:00:00Z', '2026-06-30T22:00:00.000Z'],
  ])('shows times of %s', async (name, time, wall) => {
    const { fromWall, wallDate } = await load(JSON.stringify(name))
    expect(wallDate(parse(time)).toISOString()).toBe(wall)
    expect(fromWall(parse(wall))).toBe(parse(time))
  })

  it('days at a change of the clocks have 23 and 25 hours', async () => {
    const { startOfDay } = await load('"Europe/Berlin"')
    const hours = (day: string) => (startOfDay(parse(day), 1) - startOfDay(parse(day))) / 3_600_000
    expect([hours('2026-03-29T12:00:00Z'), hours('2026-10-25T12:00:00Z'), hours('2026-11-01T12:00:00Z')]).toEqual([23, 25, 24])
    expect(new Date(startOfDay(parse('2026-03-01T12:00:00Z'), -1)).toISOString()).toBe('2026-02-27T23:00:00.000Z')
  })

  it('inputs and days are those of the zone', async () => {
    const { fromDateTimeInput, isSameDay, toDateTimeInput } = await load('"Asia/Tokyo"')
    const late = parse('2026-11-28T15:30:05Z')
    expect(toDateTimeInput(late)).toBe('2026-11-29T00:30:05')
    expect([fromDateTimeInput('2026-11-29T00:30:05'), fromDateTimeInput('')]).toEqual([late, NaN])
    expect([isSameDay(late, late - 31 * 60_000), isSameDay(late, late + 23 * 3_600_000)]).toEqual([false, true])
  })

  it.each([null, '"Nowhere/City"', 'no JSON', '7'])('is that of the browser for %s', async (stored) => {
    const { wallDate, zone } = await load(stored)
    expect(zone).toBeUndefined()
    const now = new Date(2026, 10, 28, 15, 30)
    expect(wallDate(now.getTime()).toISOString()).toBe('2026-11-28T15:30:00.000Z')
  })

  it('typed and formatted times use it', async () => {
    await load('"Asia/Tokyo"')
    const [{ parseTime }, { clock, year }] = await Promise.all([import('./timeInput'), import('./format')])
    const now = parse('2026-11-28T15:00:00Z')
    expect(new Date(parseTime('14:30', now)!).toISOString()).toBe('2026-11-28T05:30:00.000Z')
    expect(new Date(parseTime('2026-11-20 03:14', now)!).toISOString()).toBe('2026-11-19T18:14:00.000Z')
    expect(new Date(parseTime('2026-11-20T03:14:00Z', now)!).toISOString()).toBe('2026-11-20T03:14:00.000Z')
    expect([clock(now), year(parse('2026-12-31T16:00:00Z'))]).toEqual(['00:00:00', '2027'])
  })
})

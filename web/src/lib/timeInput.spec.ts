import { describe, expect, it } from 'vitest'
import { parseTime } from './timeInput'

const NOW = new Date(2026, 10, 28, 15, 0, 0).getTime()
const local = (day: number, hours: number, minutes: number, seconds = 0) => new Date(2026, 10, day, hours, minutes, seconds).getTime()

describe('parseTime', () => {
  it.each([
    ['14:30', local(28, 14, 30)],
    ['14:30:05', local(28, 14, 30, 5)],
    // Without a day, a time that is still to come was yesterday.
    ['16:00', local(27, 16, 0)],
    ['yesterday 14:30', local(27, 14, 30)],
    ['Yesterday at 14:30', local(27, 14, 30)],
    ['-6h', NOW - 6 * 3_600_000],
    ['5 min ago', NOW - 300_000],
    ['2026-11-20 03:14', local(20, 3, 14)],
    ['1795248000', 1_795_248_000_000],
    ['1795248000123', 1_795_248_000_123],
  ])('understands %j', (text, expected) => {
    expect(parseTime(text, NOW)).toBe(expected)
  })

  it.each(['', '25:00', '14:61', 'web-01', '6h', 'tomorrow', '12'])('rejects %j', (text) => {
    expect(parseTime(text, NOW)).toBeNull()
  })
})

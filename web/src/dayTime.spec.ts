import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { clockRange, dayClock, dayClockShort } from './dayTime'

const timeOf = (day: number, hour: number) => new Date(2026, 10, day, hour, 31, 6).getTime()

describe('times of day', () => {
  beforeEach(() => void vi.useFakeTimers({ now: timeOf(30, 8) }))
  afterEach(() => void vi.useRealTimers())

  it('have a date unless it is today', () => {
    expect([dayClock(timeOf(30, 4)), dayClockShort(timeOf(30, 4))]).toEqual(['04:31:06', '04:31'])
    expect([dayClock(timeOf(22, 4)), dayClockShort(timeOf(22, 4))]).toEqual(['Nov 22, 04:31:06', 'Nov 22, 04:31'])
  })

  it('have a date unless it is the given day', () => {
    expect(dayClock(timeOf(30, 4), timeOf(22, 4))).toBe('Nov 30, 04:31:06')
    expect(dayClock(timeOf(22, 9), timeOf(22, 4))).toBe('09:31:06')
  })

  it('of a range repeat no date', () => {
    expect(clockRange(timeOf(22, 4), timeOf(22, 5))).toBe('Nov 22, 04:31:06 – 05:31:06')
    expect(clockRange(timeOf(30, 4), timeOf(30, 5))).toBe('04:31:06 – 05:31:06')
    expect(clockRange(timeOf(29, 4), timeOf(30, 5))).toBe('Nov 29, 04:31:06 – 05:31:06')
  })
})

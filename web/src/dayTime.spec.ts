import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { clockRange, dayClock, dayClockShort } from './dayTime'

const at = (day: number, hour: number) => new Date(2026, 10, day, hour, 31, 6).getTime()

describe('times of day', () => {
  beforeEach(() => void vi.useFakeTimers({ now: at(30, 8) }))
  afterEach(() => void vi.useRealTimers())

  it('have a date unless it is today', () => {
    expect([dayClock(at(30, 4)), dayClockShort(at(30, 4))]).toEqual(['04:31:06', '04:31'])
    expect([dayClock(at(22, 4)), dayClockShort(at(22, 4))]).toEqual(['Nov 22, 04:31:06', 'Nov 22, 04:31'])
  })

  it('have a date unless it is the given day', () => {
    expect(dayClock(at(30, 4), at(22, 4))).toBe('Nov 30, 04:31:06')
    expect(dayClock(at(22, 9), at(22, 4))).toBe('09:31:06')
  })

  it('of a range repeat no date', () => {
    expect(clockRange(at(22, 4), at(22, 5))).toBe('Nov 22, 04:31:06 – 05:31:06')
    expect(clockRange(at(30, 4), at(30, 5))).toBe('04:31:06 – 05:31:06')
    expect(clockRange(at(29, 4), at(30, 5))).toBe('Nov 29, 04:31:06 – 05:31:06')
  })
})

import { describe, expect, it } from 'vitest'
import { byteRate, dateOf, dayState, duration, fill, linePath, percent, time } from './model'

describe('status page', () => {
  it('shows a day with its most important state', () => {
    const cases = [
      [null, 'computing'],
      [[86_400, 0, 0, 0], 'up'],
      [[86_000, 400, 0, 0], 'part'],
      [[400, 86_000, 0, 0], 'down'],
      [[0, 60, 60, 60], 'down'],
      [[80_000, 0, 6_400, 0], 'maintenance'],
      [[0, 0, 0, 0], 'none'],
      [[43_200, 0, 0, 0], 'up'],
      [[0, 0, 0, 86_400], 'unknown'],
      [[40_000, 0, 0, 46_400], 'unknown'],
      [[46_400, 0, 0, 40_000], 'up'],
    ] as const
    for (const [day, state] of cases) expect(dayState(day), JSON.stringify(day)).toBe(state)
  })

  it('draws lines with gaps', () => {
    expect(linePath([50, null, 100, 25, 400], 100)).toBe('M0 0.500M2 0.000L3 0.750L4 0.000')
    expect(linePath([null, null], 100)).toBe('')
  })

  it('formats times, lengths, percents and rates', () => {
    const now = Date.UTC(2026, 10, 29, 3, 4)
    expect(time(now - 60_000, now)).toBe('03:03 UTC')
    expect(time(now - 86_400_000, now)).toMatch(/Nov 28.*03:04 UTC/)
    expect([0, 59, 60, 3_840, 7_200, 90_000, 172_800].map(duration)).toEqual([
      '0 s',
      '59 s',
      '1 min',
      '1 h 04 min',
      '2 h',
      '1 d 1 h',
      '2 d',
    ])
    expect([100, 99.999, 99.5, 0].map(percent)).toEqual(['100%', '99.99%', '99.50%', '0.00%'])
    expect([12, 1_500, 25_000_000, 4e12].map(byteRate)).toEqual(['12 B/s', '1.5 kB/s', '25 MB/s', '4000 GB/s'])
    expect(dateOf(0, 90, now).toISOString().slice(0, 10)).toBe('2026-09-01')
    expect(fill('{a} of {b}', { a: 1, b: 'two' })).toBe('1 of two')
  })
})

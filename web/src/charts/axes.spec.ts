import { describe, expect, it } from 'vitest'
import { gapsBetween, label, liveRange, merged, formatTick, steps, summaryText, timeTicks, yRange } from './axes'

it.each([
  [new Date(2026, 4, 1, 10, 5, 7), 10, '10:05:07'],
  [new Date(2026, 4, 1, 10, 5), 300, '10:05'],
  [new Date(2026, 4, 1), 3600, 'May 1'],
  [new Date(2026, 4, 1), 30 * 86_400, 'May'],
  [new Date(2026, 0, 1), 30 * 86_400, '2026'],
  [new Date(2026, 4, 1), 365 * 86_400, '2026'],
])('%s with ticks %s s spacing is %s', (at, spacing, text) => expect(formatTick(at.getTime(), spacing)).toBe(text))

describe('axes', () => {
  it('labels have no trailing zeros', () => {
    expect(label(2 * 1024 ** 3, 'bytes')).toBe('2 GiB')
    expect(label(50, 'percent')).toBe('50%')
    expect(label(0.5, 'count')).toBe('0.5')
    expect(label(0, 'bytes_per_second')).toBe('0')
    expect(label(100, 'count')).toBe('100')
  })

  it('y range has a minimum span and caps percent at 100', () => {
    const range = (unit: 'percent' | 'bytes', max: number) => yRange(unit)(null as never, 0, max, 'y') as [number, number]
    expect(range('percent', 0)).toEqual([0, 1.08])
    expect(range('percent', 99)).toEqual([0, 100])
    expect(range('percent', 180)[1]).toBeGreaterThan(180)
    expect(range('bytes', 0)[1]).toBeGreaterThan(1000)
    expect(yRange('bytes', 500)(null as never, 0, 9, 'y')).toEqual([0, 500])
  })

  it('x range grows with a new host', () => {
    expect(liveRange([1000, 1010], 300)).toEqual([950, 1010])
    expect(liveRange([1000, 1100], 300)).toEqual([1000, 1100])
    expect(liveRange([1000, 2000], 300)).toEqual([1700, 2000])
  })

  it('finds gaps', () => {
    const steps2 = [2, 2, 2, 2, 2]
    expect(gapsBetween([0, 2, 4, 64, 66], steps2, 0, 4)).toEqual([[4, 64]])
    expect(gapsBetween([0, 2, 4.9], steps2, 0, 2)).toEqual([])
    // The tick after a stall covers a long time; the stall is still a gap.
    expect(gapsBetween([0, 2, 22], [2, 2, 20], 0, 2)).toEqual([[2, 22]])
    expect(
      merged([
        [5, 9],
        [1, 3],
        [2, 4],
        [9, 12],
      ]),
    ).toEqual([
      [1, 4],
      [5, 12],
    ])
    expect(steps('bytes')[10]).toBe(1024)
  })

  it('mirrored charts have zero in the middle', () => {
    expect(yRange('bytes_per_second')(null as never, -3_000, 5_000, 'y')).toEqual([-5_400, 5_400])
  })

  it('time ticks are at round times and at most as many as asked for', () => {
    const offset = new Date(7_200_000).getTimezoneOffset() * 60
    const { ticks, spacing } = timeTicks(offset + 100, offset + 3_700, 5)
    expect(spacing).toBe(900)
    expect(ticks.map((tick) => tick - offset)).toEqual([900, 1_800, 2_700, 3_600])
  })

  it('summary has the values of the visible range', () => {
    expect(summaryText('cpu', [1, 40, 92.6, null, 99], [0, 10, 20, 30, 40], [5, 35], 'percent')).toBe('cpu 40.0% to 92.6%')
    expect(summaryText('cpu', [null], [0], [0, 1], 'percent')).toBe('no values')
  })
})

import { describe, expect, it } from 'vitest'
import type { Backtest, Rule } from '../../api/types'
import { dragStep, firingBars, isUntested, median, onGrid } from './backtestDays'

const timeOf = (day: number, hour: number) => new Date(2026, 10, day, hour).getTime()

describe('firingBars', () => {
  it('counts by local day', () => {
    const bars = firingBars([timeOf(22, 3), timeOf(22, 23), timeOf(28, 11)], timeOf(28, 12), '-7d')
    expect(bars.map(({ count }) => count)).toEqual([0, 2, 0, 0, 0, 0, 0, 1])
    expect(bars[0]!.fromMs).toBe(timeOf(21, 0))
    expect(bars.every(({ label }) => label)).toBe(true)
  })

  it('counts a day by hour and leaves out what was before', () => {
    const bars = firingBars([timeOf(27, 11), timeOf(28, 11), timeOf(28, 11) + 59 * 60_000], timeOf(28, 12), '-24h')
    expect(bars.length).toBe(25)
    expect(bars.reduce((sum, { count }) => sum + count, 0)).toBe(3)
    expect(bars.at(-1)).toMatchObject({ fromMs: timeOf(28, 11), count: 2 })
    expect(firingBars([timeOf(1, 0)], timeOf(28, 12), '-24h').every(({ count }) => count === 0)).toBe(true)
  })
})

describe('drag', () => {
  it('moves in readable steps', () => {
    expect(dragStep(100)).toBe(1)
    expect(dragStep(6e9)).toBe(1e7)
    expect(onGrid(84.6, 1)).toBe(85)
    expect(onGrid(0.1234, 0.01)).toBe(0.12)
  })
})

describe('median', () => {
  it('is null without values', () => {
    expect(median([])).toBeNull()
    expect(median([9, 1, 5])).toBe(5)
  })
})

it.each([
  ['threshold', [0, 0], true],
  ['forecast', [], true],
  ['threshold', [0, 5], false],
  ['absent', [0], false],
  ['no_data', [0], false],
] as const)('rule of the kind %s with %j values is untested: %s', (kind, counts, expected) => {
  const backtest = { hosts: counts.map((value_count) => ({ value_count })) } as unknown as Backtest
  expect(isUntested({ condition: { kind } } as Rule, backtest)).toBe(expected)
})

import { describe, expect, it } from 'vitest'
import type { QueryResponse, QuerySeries } from '../../api/types'
import { answerToCsv, ColorMap, commonGaps, groupLabel, statistics, toCharts } from './results'
import { newQuery } from './state'

const series = (query: string, host: string, v: (number | null)[], more: Partial<QuerySeries> = {}): QuerySeries => ({
  ...{ query, metric: 'cpu.usage', host: `id-${host}`, labels: { host }, unit: 'percent', v, min: null, max: null, hosts: null },
  ...more,
})

const answer = (list: QuerySeries[]): QueryResponse => ({
  ...{ from_ms: 0, to_ms: 40_000, start_ms: 0, step_ms: 10_000, points: 4, tier: 'raw', queries: [], duration_ms: 1 },
  series: list,
  left_out: { hosts: 0, series: 0, points: 0, reasons: [], unknown_hosts: [] },
})
const set = { queries: [newQuery('A', 'cpu.usage'), newQuery('B', 'memory.used')] }

describe('statistics', () => {
  it.each([
    [[1, null, 3], undefined, undefined, { min: 1, average: 2, max: 3, last: 3 }],
    [[2, 4, null], [1, 3, null], [9, 4, null], { min: 1, average: 3, max: 9, last: 4 }],
    [[null, null], undefined, undefined, { min: null, average: null, max: null, last: null }],
  ])('of %j', (values, low, high, expected) => {
    expect(statistics(values, low, high)).toEqual(expected)
  })
})

describe('charts', () => {
  const list = [
    series('A', 'db-1', [1, 2, 3, 4]),
    series('A', 'db-2', [1, 2, 3, 4]),
    series('B', 'db-1', [5, 6, 7, 8], { metric: 'memory.used', unit: 'bytes' }),
  ]

  it.each([
    ['metric', [['db-1', 'db-2'], ['db-1']]],
    ['host', [['db-1'], ['db-2'], ['db-1']]],
    ['overlay', [['db-1', 'db-2'], ['db-1']]],
  ] as const)('are split by %s', (split, expected) => {
    const { charts } = toCharts(answer(list), set, split, new ColorMap())
    expect(charts.map(({ lines }) => lines.map(({ label }) => label))).toEqual(expected)
  })

  it('give a host one color in all charts, and other hosts beyond eight a common one', () => {
    const { charts } = toCharts(answer(list), set, 'metric', new ColorMap())
    expect(charts.map(({ lines }) => lines.map(({ color }) => color))).toEqual([['c1', 'c2'], ['c1']])
    const many = Array.from({ length: 10 }, (_, at) => series('A', `host-${at}`, [1, 1, 1, 1]))
    const colors = toCharts(answer(many), set, 'metric', new ColorMap()).charts[0]!.lines.map(({ color }) => color)
    expect(colors.slice(7)).toEqual(['c8', 'c-rest', 'c-rest'])
  })

  it('reuse the colors of groups that are no longer shown', () => {
    const colors = new ColorMap()
    const colorsOf = (hosts: string[], metric = 'A') =>
      toCharts(answer(hosts.map((host) => series(metric, host, [1, 1, 1, 1]))), set, 'metric', colors).charts[0]!.lines.map(
        ({ color }) => color,
      )
    const hosts = Array.from({ length: 8 }, (_, at) => `host-${at}`)
    expect(new Set(colorsOf(hosts)).size).toBe(8)
    expect(colorsOf(['host-7', 'other-1', 'other-2'])).toEqual(['c8', 'c1', 'c2'])
    expect(new Set(colorsOf([...hosts, 'host-8']))).toContain('c-rest')
    expect(colorsOf(['host-8', 'host-7'])).not.toContain('c-rest')
  })

  it('give each of two charts with eight other hosts all colors', () => {
    const list = Array.from({ length: 16 }, (_, at) => series(at < 8 ? 'A' : 'B', `host-${at}`, [1, 1, 1, 1]))
    const { charts } = toCharts(answer(list), set, 'metric', new ColorMap())
    expect(charts.map(({ lines }) => new Set(lines.map(({ color }) => color)).size)).toEqual([8, 8])
    expect(charts.flatMap(({ lines }) => lines.map(({ color }) => color))).not.toContain('c-rest')
  })

  it('give a metric the same color in the charts of all hosts', () => {
    const list = Array.from({ length: 10 }, (_, at) => series('A', `host-${at}`, [1, 1, 1, 1]))
    const { charts } = toCharts(answer(list), set, 'host', new ColorMap())
    expect(new Set(charts.flatMap(({ lines }) => lines.map(({ color }) => color)))).toEqual(new Set(['c1']))
  })

  it('read the values of each series', () => {
    const { charts } = toCharts(answer(list), set, 'metric', new ColorMap())
    const { columns, lines } = charts[1]!
    expect(columns.get('B', lines[0]!.key)).toEqual([5, 6, 7, 8])
    expect(columns.times).toEqual([0, 10, 20, 30])
    expect(charts[1]!.subtitle).toBe('bytes, average by host')
  })
})

it('gaps are where no series has a value', () => {
  const lines = [
    [1, null, null, 4],
    [1, 2, null, 4],
  ].map((v) => ({ series: { v } }))
  expect(commonGaps(lines, [0, 10, 20, 30], 10)).toEqual([{ from: 20, to: 30, reason: 'unknown' }])
  expect(commonGaps([{ series: { v: [null, 1, null, null] } }], [0, 10, 20, 30], 10)).toEqual([])
})

it.each([
  [{ host: 'db-1', instance: 'sda' }, 'db-1 · sda'],
  [{ role: '' }, '(no role)'],
  [{}, 'All hosts'],
])('label of %j', (labels, expected) => {
  expect(groupLabel(series('A', 'x', [], { labels }))).toBe(expected)
})

it('CSV quotes names, leaves gaps empty, and has UTC times', () => {
  const csv = answerToCsv({ ...answer([series('A', 'a,"b', [1.5, null, 3, 4])]), start_ms: 1_763_719_200_000 })
  const [header, first, second] = csv.split('\r\n')
  expect(header).toBe('time,"A cpu.usage a,""b"')
  expect([first, second]).toEqual(['2025-11-21T10:00:00.000Z,1.5', '2025-11-21T10:00:10.000Z,'])
})

import { describe, expect, it } from 'vitest'
import { defaultState, freeId, fromAddress, newQuery, nextQuery, parseSet, toAddress, withMetric } from './state'

describe('parseSet', () => {
  it('reads queries and formulas, and drops what it does not know', () => {
    const text = JSON.stringify({
      queries: [
        { id: 'A', metric: 'cpu.usage', hosts: { tags: ['role=db', 3], hosts: [] }, aggregate: 'max', by: 'tag:role', limit: 5, x: 1 },
        { id: 'B', metric: 'disk.*', aggregate: 'median', limit: -1, hidden: true, instance: 'sda' },
        { id: 'C' },
        null,
      ],
      formulas: [{ id: 'F1', expression: 'A / B' }, { id: 'F2' }],
    })
    expect(parseSet(text)).toEqual({
      queries: [
        { id: 'A', metric: 'cpu.usage', hosts: { tags: ['role=db'] }, aggregate: 'max', by: 'tag:role', limit: 5 },
        { id: 'B', metric: 'disk.*', instance: 'sda', hosts: {}, aggregate: 'mean', by: 'host', hidden: true },
      ],
      formulas: [{ id: 'F1', expression: 'A / B' }],
    })
  })

  it.each(['', 'x', '{}', '[]', 'null', '{"queries":{}}'])('rejects %s', (text) => {
    expect(parseSet(text)).toBeNull()
  })

  it('limits the number of queries', () => {
    const queries = Array.from({ length: 40 }, (_, at) => newQuery(`Q${at}`, 'cpu.usage'))
    expect(parseSet(JSON.stringify({ queries }))?.queries).toHaveLength(10)
  })
})

describe('address', () => {
  it('contains what differs from the view, and keeps other parameters', () => {
    const view = defaultState()
    expect(toAddress(view, view, { range: '6h' })).toEqual({ range: '6h', q: undefined, split: undefined, form: undefined })
    const changed = { ...view, form: 'stack' as const, set: { queries: [newQuery('A', 'memory.used')] } }
    const address = toAddress(changed, view)
    expect(address.form).toBe('stack')
    expect(fromAddress({ q: address.q as string, form: 'stack' }, view)).toEqual(changed)
  })

  it('ignores invalid parameters', () => {
    const view = defaultState()
    expect(fromAddress({ q: '{', split: 'rack', form: 'pie' }, view)).toEqual(view)
  })
})

describe('freeId', () => {
  it('names queries by letters and formulas by numbers', () => {
    const set = { queries: [newQuery('A', 'x'), newQuery('C', 'x')], formulas: [{ id: 'F1', expression: 'A' }] }
    expect(freeId(set, 'query')).toBe('B')
    expect(freeId(set, 'formula')).toBe('F2')
  })
})

describe('withMetric', () => {
  const memory = { ...newQuery('A', 'memory.used'), hosts: { tags: ['role=db'] }, aggregate: 'max' as const, by: 'tag:role', limit: 3 }

  it('replaces the metric of the untouched query of an empty page', () => {
    expect(withMetric(defaultState().set, 'memory.used').queries).toEqual([newQuery('A', 'memory.used')])
  })

  it('keeps the query of a saved view', () => {
    const { queries } = withMetric(defaultState().set, 'memory.used', { isView: true })
    expect(queries.map(({ metric }) => metric)).toEqual(['cpu.usage', 'memory.used'])
  })

  it('adds a query with the hosts, aggregation, grouping and limit of the one before', () => {
    expect(withMetric({ queries: [memory] }, 'load.1m').queries).toEqual([memory, { ...memory, id: 'B', metric: 'load.1m' }])
  })

  it('replaces the metric of an added query that repeats the one before', () => {
    const set = { queries: [memory, nextQuery({ queries: [memory] }, memory.metric)] }
    expect(withMetric(set, 'load.1m').queries.map(({ metric }) => metric)).toEqual(['memory.used', 'load.1m'])
  })

  it('groups a metric without instances by host', () => {
    const disk = { ...newQuery('A', 'disk.read_bytes'), by: 'series' }
    expect(withMetric({ queries: [disk] }, 'load.1m', { hasInstances: false }).queries[1]).toMatchObject({ by: 'host' })
  })

  it('adds no query beyond the limit', () => {
    const queries = Array.from({ length: 10 }, (_, at) => newQuery(`Q${at}`, `m${at}`))
    expect(withMetric({ queries }, 'load.1m').queries).toHaveLength(10)
  })
})

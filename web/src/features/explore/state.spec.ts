import { describe, expect, it } from 'vitest'
import { defaultState, freeId, fromAddress, newQuery, parseSet, toAddress } from './state'

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

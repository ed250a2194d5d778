import { describe, expect, it } from 'vitest'
import { HostColumns, KEEP_S } from './columns'

const columns = [
  { metric: 'cpu.usage', instance: '', decimals: 2 },
  { metric: 'cpu.core.usage', instance: '10', decimals: 1 },
  { metric: 'cpu.core.usage', instance: '2', decimals: 1 },
]
const tick = (t: number, v: (number | null)[], shape = 's') => ({ host: 'h', shape, t, seq: 0, interval_ms: 2000, v })

describe('HostColumns', () => {
  it('unscales values, keeps gaps and sorts instances naturally', () => {
    const store = new HostColumns()
    store.setShape('s', columns)
    store.tick(tick(1000, [1234, 5, null]))
    expect(store.times).toEqual([1])
    expect(store.last('cpu.usage')).toBe(12.34)
    expect(store.last('cpu.core.usage', '2')).toBeNull()
    store.tick(tick(3000, [0, 5, 7]))
    expect(store.instances('cpu.core.usage')).toEqual(['2', '10'])
    expect(store.get('cpu.core.usage', '2')).toEqual([null, 0.7])
  })

  it('inserts late ticks and replaces duplicates', () => {
    const store = new HostColumns()
    store.setShape('s', columns)
    for (const t of [1000, 5000, 3000, 5000, 2000]) store.tick(tick(t, [t, 0, 0]))
    expect(store.times).toEqual([1, 2, 3, 5])
    expect(store.get('cpu.usage')).toEqual([10, 20, 30, 50])
  })

  it('handles shape changes', () => {
    const store = new HostColumns()
    store.setShape('s', columns)
    store.tick(tick(1000, [100, 1, 1]))
    store.setShape('n', [{ metric: 'load.1m', instance: '', decimals: 2 }])
    store.tick(tick(2000, [50], 'n'))
    expect(store.get('cpu.usage')).toEqual([1, null])
    expect(store.get('load.1m')).toEqual([null, 0.5])
    // Ticks of an unknown shape are ignored.
    store.tick(tick(3000, [1, 2], 'unknown'))
    expect(store.times).toEqual([1, 2])
  })

  it('merges backfill', () => {
    const store = new HostColumns()
    store.setShape('s', columns)
    store.tick(tick(5000, [500, 0, 0]))
    store.backfill({
      host: 'h',
      shape: 's',
      interval_ms: 2000,
      columns,
      t: [1000, 3000, 5000],
      v: [
        [1, 3, 5],
        [0, 0, 0],
        [0, 0, 0],
      ],
    })
    expect(store.times).toEqual([1, 3, 5])
    expect(store.get('cpu.usage')).toEqual([0.01, 0.03, 0.05])
  })

  it('evicts old columns and stays aligned', () => {
    const store = new HostColumns()
    store.setShape('s', columns)
    store.setShape('n', columns.slice(0, 2))
    const shapeAt = (n: number) => (n < 100 ? 's' : 'n')
    for (let n = 0; n < KEEP_S * 2; n++) store.tick(tick(n * 1000, shapeAt(n) === 's' ? [n, n, n] : [n, n], shapeAt(n)))
    expect(store.times.length).toBeLessThanOrEqual(KEEP_S + 121)
    expect([store.get('cpu.usage').length, store.steps.length]).toEqual([store.times.length, store.times.length])
    expect(store.last('cpu.usage')).toBe((KEEP_S * 2 - 1) / 100)
    expect(store.instances('cpu.core.usage')).toEqual(['10'])
    expect(store.has('cpu.core.usage', '2')).toBe(false)
  })

  it('keeps visible data while paused', () => {
    const store = new HostColumns()
    store.setShape('s', columns)
    store.keepAll = true
    for (let n = 0; n < KEEP_S * 2; n++) store.tick(tick(n * 1000, [n, n, n]))
    expect(store.times[0]).toBe(0)
    store.keepAll = false
    store.tick(tick(KEEP_S * 2000, [0, 0, 0]))
    expect(store.times[0]).toBe(KEEP_S)
  })

  it('handles a clock set back', () => {
    const store = new HostColumns()
    store.setShape('s', columns)
    const seq = (n: number, t: number) => ({ ...tick(t, [n, 0, 0]), seq: n })
    for (const [n, t] of [
      [1, 10_000],
      [2, 12_000],
      [3, 14_000],
    ] as const)
      store.tick(seq(n, t))
    store.tick(seq(4, 11_000))
    expect(store.times).toEqual([10, 11])
    expect(store.last('cpu.usage')).toBe(0.04)
  })

  it('detects the interval of each segment', () => {
    const store = new HostColumns()
    const t = [0, 10_000, 20_000, 21_000, 22_000]
    const v = [t.map(() => 1), t.map(() => 1), t.map(() => 1)]
    store.backfill({ host: 'h', shape: 's', interval_ms: 1000, columns, t, v })
    expect(store.steps).toEqual([10, 10, 1, 1, 1])
  })
})

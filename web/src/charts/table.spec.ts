import { describe, expect, it } from 'vitest'
import type { Columns, Value } from '../live/columns'
import { ghostValues, MAX_TABLE_ROWS, tableRows } from './table'

const columnsOf = (times: number[], values: Value[], gaps?: Columns['gaps']) =>
  ({ times, steps: times.map(() => 2), gaps, get: () => values }) as unknown as Columns

describe('tableRows', () => {
  it('lists the points of the range, newest first, with gaps and events', () => {
    const columns = columnsOf([10, 12, 30, 32, 50], [1, null, 3, 4, 5], [{ from: 12, to: 30, reason: 'agent_stopped' }])
    const { rows, total } = tableRows(columns, [{ metric: 'a' }], [11, 40], [{ at: 31, label: 'Host rebooted' }])
    expect(total).toBe(3)
    expect(rows.map(({ at, values, gap, text }) => [at, gap?.reason ?? text ?? values[0]])).toEqual([
      [32, 4],
      [31, 'Host rebooted'],
      [30, 3],
      [12, 'agent_stopped'],
      [12, null],
    ])
  })

  it('finds gaps of live data, and shows the newest rows of many', () => {
    const times = Array.from({ length: MAX_TABLE_ROWS + 10 }, (_, index) => 1_000 + index * 2)
    times.push(times.at(-1)! + 100)
    const { rows, total } = tableRows(columnsOf(times, times), [{ metric: 'a' }], [0, 10_000])
    expect(total).toBe(MAX_TABLE_ROWS + 11)
    expect(rows[0]!.at).toBe(times.at(-1))
    expect(rows[1]!.gap).toEqual({ from: times.at(-2), to: times.at(-1), reason: 'unknown' })
    expect(rows).toHaveLength(MAX_TABLE_ROWS + 1)
  })

  it('lists the compared values beside those of each series', () => {
    const ghost = { columns: columnsOf([-90, -88, -86], [7, null, 9]), shift: 100, label: 'db-1' }
    const { rows } = tableRows(columnsOf([10, 12, 14], [1, 2, 3]), [{ metric: 'a' }, { metric: 'b' }], [0, 20], [], ghost)
    expect(rows.map(({ values }) => values)).toEqual([
      [3, 9, 3, 9],
      [2, null, 2, null],
      [1, 7, 1, 7],
    ])
  })

  it('takes compared values of the nearest point, and none beyond its step', () => {
    const ghost = { columns: columnsOf([0, 10, 20], [1, 2, 3]), shift: 0, label: '' }
    expect(ghostValues(ghost, { metric: 'a' }, [1, 9, 14, 29, 31])).toEqual([1, 2, 2, 3, null])
    expect(ghostValues({ ...ghost, columns: columnsOf([], []) }, { metric: 'a' }, [1])).toEqual([null])
  })
})

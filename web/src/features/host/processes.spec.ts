import { describe, expect, it } from 'vitest'
import type { ProcessRow } from '../../api/types'
import { compareByName, compareProcesses, groupProcesses, ioOf, processTree } from './processes'

const row = (pid: number, name: string, cpu_percent: number, more: Partial<ProcessRow> = {}): ProcessRow => ({
  pid,
  name,
  user: 'root',
  command: '',
  state: 'S',
  cpu_percent,
  memory_bytes: 100,
  threads: 1,
  started_ms: 0,
  ...more,
})

describe('processes', () => {
  it('groups have the sums of their members', () => {
    const [postgres, other] = groupProcesses([
      row(1, 'postgres', 10, { read_bytes: 5 }),
      row(2, 'sshd', 1),
      row(3, 'postgres', 20, { user: 'pg' }),
    ])
    expect(postgres!.members).toHaveLength(2)
    expect(postgres!.row).toMatchObject({ pid: 1, user: '', cpu_percent: 30, memory_bytes: 200, threads: 2, read_bytes: 5 })
    expect(postgres!.row.write_bytes).toBeUndefined()
    expect(other!.row).toMatchObject({ name: 'sshd', user: 'root' })
  })

  it('new processes are those that started since; those that are not listed any more are gone', () => {
    const before = [row(1, 'postgres', 50), row(2, 'rsync', 20)]
    // Process 4 ran before, but was too small for the list.
    const now = [row(1, 'postgres', 60), row(3, 'postgres', 400, { started_ms: 11_000 }), row(4, 'cron', 5, { started_ms: 9_000 })]
    const changes = compareProcesses(now, before, 10)
    expect([...changes.started]).toEqual(['3-11000'])
    expect(changes.gone).toBe(1)
    expect(changes.mover).toEqual({ name: 'postgres', cores: 4.1 })
    expect(compareProcesses(before, before, 10).mover).toBeNull()
  })

  it('a tree has children below their parents, in the order of the list', () => {
    const rows = [
      row(30, 'worker', 90, { parent_pid: 20, started_ms: 5 }),
      row(20, 'server', 50, { parent_pid: 1, started_ms: 2 }),
      row(41, 'task', 20, { parent_pid: 99, started_ms: 3 }),
      row(31, 'worker', 10, { parent_pid: 20, started_ms: 5 }),
      row(42, 'task', 8, { parent_pid: 99, started_ms: 3 }),
      row(43, 'alone', 7, { parent_pid: 98, started_ms: 3 }),
      // The process id of the parent was used again, by a later process.
      row(44, 'old', 6, { parent_pid: 30, started_ms: 1 }),
      row(45, 'unknown', 5),
    ]
    expect(processTree(rows).map(({ pid, row, depth }) => [pid, row?.name, depth])).toEqual([
      [20, 'server', 0],
      [30, 'worker', 1],
      [31, 'worker', 1],
      [99, undefined, 0],
      [41, 'task', 1],
      [42, 'task', 1],
      [43, 'alone', 0],
      [44, 'old', 0],
      [45, 'unknown', 0],
    ])
  })

  it('a tree of processes that name each other as parents contains each once', () => {
    const rows = [row(2, 'a', 1, { parent_pid: 3 }), row(3, 'b', 1, { parent_pid: 2 })]
    expect(processTree(rows).map(({ pid, depth }) => [pid, depth])).toEqual([
      [3, 0],
      [2, 1],
    ])
  })

  it('I/O is unknown without permission', () => {
    expect(ioOf(row(1, 'a', 1))).toBeUndefined()
    expect(ioOf(row(1, 'a', 1, { write_bytes: 3 }))).toBe(3)
  })
})

describe('compareByName', () => {
  it('sums names on both sides and subtracts the other side', () => {
    const left = [row(1, 'db', 30), row(2, 'db', 20, { memory_bytes: 50 }), row(3, 'web', 5)]
    const right = [row(9, 'db', 10, { memory_bytes: 200 }), row(8, 'batch', 40, { read_bytes: 7 })]
    const lines = new Map(compareByName(left, right).map((line) => [line.name, line]))
    expect(lines.get('db')).toMatchObject({
      left: { count: 2, cpu: 50 },
      right: { count: 1, cpu: 10 },
      difference: { cpu: 40, memory: -50 },
    })
    expect(lines.get('web')).toMatchObject({ right: undefined, difference: { cpu: 5, memory: 100 } })
    expect(lines.get('batch')).toMatchObject({ left: undefined, difference: { cpu: -40, count: -1, io: -7 } })
    expect(lines.size).toBe(3)
  })
})

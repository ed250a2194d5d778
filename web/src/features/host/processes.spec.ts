import { describe, expect, it } from 'vitest'
import type { ProcessRow } from '../../api/types'
import { compareProcesses, groupProcesses, ioOf } from './processes'

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

  it('I/O is unknown without permission', () => {
    expect(ioOf(row(1, 'a', 1))).toBeUndefined()
    expect(ioOf(row(1, 'a', 1, { write_bytes: 3 }))).toBe(3)
  })
})

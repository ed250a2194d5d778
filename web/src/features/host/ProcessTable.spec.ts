import { mount } from '@vue/test-utils'
import { describe, expect, it } from 'vitest'
import type { ProcessRow } from '../../api/types'
import ProcessTable from './ProcessTable.vue'

const row = (pid: number, name: string, more: Partial<ProcessRow> = {}): ProcessRow => ({
  pid,
  name,
  user: 'root',
  command: '',
  state: 'S',
  cpu_percent: 0,
  memory_bytes: 0,
  threads: 1,
  started_ms: 0,
  ...more,
})
const rows = [
  row(3, 'beta', { cpu_percent: 5, memory_bytes: 10, open_files: 4 }),
  row(1, 'alpha', { cpu_percent: 50, memory_bytes: 5, command: '/usr/bin/alpha --port 80' }),
  row(2, 'gamma', { cpu_percent: 5, memory_bytes: 99, open_files: 9, user: 'bob' }),
]
const names = (table: ReturnType<typeof mount>) => table.findAll('tbody b').map((cell) => cell.text())

describe('ProcessTable', () => {
  it('sorts by CPU, then by the clicked column, missing values last', async () => {
    const table = mount(ProcessTable, { props: { rows } })
    // Equal values are sorted by PID.
    expect(names(table)).toEqual(['alpha', 'gamma', 'beta'])
    const click = (label: string) =>
      table
        .findAll('th button')
        .find((button) => button.text().startsWith(label))!
        .trigger('click')
    await click('Memory')
    expect(names(table)).toEqual(['gamma', 'beta', 'alpha'])
    await click('Memory')
    expect(names(table)).toEqual(['alpha', 'beta', 'gamma'])
    await click('Process')
    expect(names(table)).toEqual(['alpha', 'beta', 'gamma'])
    await click('Open files')
    expect(names(table)).toEqual(['gamma', 'beta', 'alpha'])
    await click('Open files')
    expect(names(table)).toEqual(['beta', 'gamma', 'alpha'])
    expect(table.find('th[aria-sort]').text()).toContain('Open files')
  })

  it('filters by all terms and shows an empty state', async () => {
    const table = mount(ProcessTable, { props: { rows } })
    await table.find('input').setValue('port alpha')
    expect(names(table)).toEqual(['alpha'])
    await table.find('input').setValue('bob')
    expect(names(table)).toEqual(['gamma'])
    await table.find('input').setValue('nothing')
    expect(table.text()).toContain('No process matches "nothing" (3 processes)')
  })
})

import { describe, expect, it } from 'vitest'
import type { OverviewHost, OverviewValues } from '../../api/types'
import { filterHosts, groupHosts, meanOf, sortHosts, tagKeys, toRows } from './hostRows'

const host = (name: string, tags: string[] = []): OverviewHost => ({
  id: name,
  name,
  tags,
  collection_method: 'agent',
  cores: 4,
  memory_bytes: null,
  os: null,
})
const HOSTS = [host('web-2', ['env=prod', 'role=web']), host('web-10', ['env=prod']), host('db-1', ['env=test']), host('old')]
const VALUES: OverviewValues = {
  status: ['online', 'online', 'online', 'no_data'],
  last_seen_ms: [1, 1, 1, 1],
  cpu: [20, 95, 40, null],
  memory: [50, 60, 70, null],
  disk: [10, 20, 30, null],
  disk_mount: ['/', '/', '/', null],
  rx: [1, 2, 3, null],
  tx: [1, 2, 3, null],
  load: [1, 8, 2, null],
  pressure: [0, 30, null, null],
  uptime_s: [1, 1, 1, null],
  critical: [0, 0, 1, 0],
  warning: [0, 2, 0, 0],
}
const ALL = [0, 1, 2, 3]
const names = (indices: number[]) => indices.map((index) => HOSTS[index]!.name)

describe('filterHosts', () => {
  it.each([
    ['', ALL],
    ['WEB', [0, 1]],
    ['tag:test', [2]],
    ['state:no_data', [3]],
    ['cpu>80', [1]],
    ['cpu<=40', [0, 2]],
    ['alerts>0', [1, 2]],
    ['web -role=web', [1]],
    ['web cpu>80%', [1]],
    ['nothing', []],
    // A lone sign is text, and an unknown metric is not a condition.
    ['-', [0, 1, 2]],
    ['foo>1', []],
  ])('finds hosts by %j', (text, expected) => {
    expect(filterHosts(HOSTS, VALUES, text)).toEqual(expected)
  })
})

describe('sortHosts', () => {
  const sorted = (key: Parameters<typeof sortHosts>[3]['key'], descending: boolean) =>
    names(sortHosts([...ALL], HOSTS, VALUES, { key, descending }))

  it('sorts names by their numbers', () => {
    expect(sorted('name', false)).toEqual(['db-1', 'old', 'web-2', 'web-10'])
  })
  it('hosts without a value are last in both directions', () => {
    expect(sorted('cpu', true)).toEqual(['web-10', 'db-1', 'web-2', 'old'])
    expect(sorted('cpu', false)).toEqual(['web-2', 'db-1', 'web-10', 'old'])
  })
  it('severity ranks critical alerts, missing data, warnings, load', () => {
    expect(sorted('severity', true)).toEqual(['db-1', 'old', 'web-10', 'web-2'])
  })
})

describe('groups', () => {
  it('follow the values of a tag; hosts without it are last', () => {
    expect(tagKeys(HOSTS)).toEqual(['env', 'role'])
    const groups = groupHosts(ALL, HOSTS, 'env')
    expect(groups.map(({ name, indices }) => [name, names(indices)])).toEqual([
      ['prod', ['web-2', 'web-10']],
      ['test', ['db-1']],
      ['', ['old']],
    ])
    const rows = toRows(groups, new Set(['prod']))
    expect(rows.map((row) => (row.kind === 'host' ? HOSTS[row.index]!.name : `[${row.group.name}]`))).toEqual([
      '[prod]',
      '[test]',
      'db-1',
      '[]',
      'old',
    ])
  })
  it('mean skips missing values', () => {
    expect(meanOf(VALUES.cpu, ALL)).toBeCloseTo(155 / 3)
    expect(meanOf(VALUES.cpu, [3])).toBeNull()
  })
})

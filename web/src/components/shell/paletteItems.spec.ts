import { describe, expect, it } from 'vitest'
import type { Host } from '../../api/types'
import { type PaletteItem, searchPalette, timeJump } from './paletteItems'

const NOW = new Date(2026, 10, 28, 15, 0, 0).getTime()
const host = (name: string) => ({ id: `id-${name}`, name, tags: [], status: 'online' }) as unknown as Host
const HOSTS = [host('db-03'), host('web-01')]
const item = (group: PaletteItem['group'], text: string, note?: string): PaletteItem => ({ id: `${group} ${text}`, group, text, note })
const ITEMS = [
  item('hosts', 'db-03', 'env=prod'),
  item('hosts', 'web-01', 'env=test'),
  item('pages', 'Alerts'),
  item('actions', 'Create rule'),
  item('metrics', 'cpu.usage', 'CPU usage'),
]
const found = (query: string) => searchPalette(query, ITEMS, null).map(({ group, items }) => [group, items.map(({ text }) => text)])

describe('searchPalette', () => {
  it('groups matches; metrics need a query', () => {
    expect(found('')).toEqual([
      ['hosts', ['db-03', 'web-01']],
      ['pages', ['Alerts']],
      ['actions', ['Create rule']],
    ])
    expect(found('cpu')).toEqual([['metrics', ['cpu.usage']]])
  })
  it('prefixes limit the groups', () => {
    expect(found('#prod')).toEqual([['hosts', ['db-03']]])
    expect(found('>rule')).toEqual([['actions', ['Create rule']]])
    expect(found('@cpu')).toEqual([['metrics', ['cpu.usage']]])
  })
})

describe('timeJump', () => {
  it('opens a host at a time', () => {
    const at = new Date(2026, 10, 27, 14, 30).getTime()
    expect(timeJump('db-03 yesterday 14:30', HOSTS, NOW)?.to).toEqual({
      path: '/hosts/id-db-03',
      query: { from: String(at - 300_000), to: String(at + 300_000), at: String(at) },
    })
  })
  it.each(['db-03', 'yesterday 14:30', 'unknown-xyz 14:30'])('%j is not a jump', (query) => {
    expect(timeJump(query, HOSTS, NOW)).toBeNull()
  })
})

import { describe, expect, it } from 'vitest'
import type { Server } from '../../api/types'
import { allTags, isOutdated, shownServers, type Sort, stateOf, toRequest } from './serverRows'

const base = {
  id: '1',
  name: 'edge-1',
  address: '192.0.2.1',
  port: 22,
  user: 'watch',
  auth_method: 'key',
  jump: null,
  jump_hidden: false,
  tags: ['role=edge'],
  interval: '15m',
  thresholds: { cpu: 90, memory: null, disk: null },
  enabled: true,
  version: 3,
  host_key: null,
  blocked: null,
  last: null,
  last_success_ms: null,
  next_run_ms: null,
  summary: null,
} as Server
const lastRun = (finished_ms: number, cause: string | null = null) =>
  ({ finished_ms, duration_ms: 5, cause, error: cause }) as Server['last']
const server = (name: string, changes: Partial<Server> = {}): Server => ({ ...base, id: name, name, ...changes })
const SERVERS = [
  server('edge-2', { last: lastRun(10), summary: { at_ms: 10, cpu: 70 } as Server['summary'] }),
  server('edge-10', { last: lastRun(30), summary: { at_ms: 30, cpu: 5 } as Server['summary'] }),
  server('db-1', { tags: ['role=db'], last: lastRun(20, 'timed_out') }),
  server('locked', { blocked: { cause: 'authentication_failed', offered_host_key: null }, last: lastRun(5, 'authentication_failed') }),
  server('off', { enabled: false }),
]
const ALL = { text: '', state: '', tag: '' } as const
const names = (filter: Parameters<typeof shownServers>[1], sort: Sort = { key: 'name', descending: false }) =>
  shownServers(SERVERS, filter, sort).map(({ name }) => name)

describe('shownServers', () => {
  it.each([
    [{ ...ALL, text: 'edge-' }, ['edge-2', 'edge-10']],
    [{ ...ALL, text: '-role=edge' }, ['db-1']],
    [{ ...ALL, text: '192.0 -edge-2' }, ['db-1', 'edge-10', 'locked', 'off']],
    [{ ...ALL, state: 'failing' as const }, ['db-1']],
    [{ ...ALL, state: 'blocked' as const }, ['locked']],
    [{ ...ALL, tag: 'role=db' }, ['db-1']],
  ])('filters by %j', (filter, expected) => expect(names(filter).sort()).toEqual([...expected].sort()))

  it('sorts; hosts without a value are last', () => {
    expect(names(ALL)).toEqual(['db-1', 'edge-2', 'edge-10', 'locked', 'off'])
    expect(names(ALL, { key: 'cpu', descending: true }).slice(0, 2)).toEqual(['edge-2', 'edge-10'])
    expect(names(ALL, { key: 'state', descending: true }).slice(0, 2)).toEqual(['locked', 'db-1'])
    expect(names(ALL, { key: 'age', descending: false })).toEqual(['edge-10', 'db-1', 'edge-2', 'locked', 'off'])
  })
})

it('states follow the configuration before the last collection', () => {
  expect(SERVERS.map(stateOf)).toEqual(['ok', 'ok', 'failing', 'blocked', 'disabled'])
  expect(stateOf(base)).toBe('never')
  expect(isOutdated({ ...SERVERS[2]!, summary: SERVERS[0]!.summary })).toBe(true)
  expect(isOutdated(SERVERS[0]!)).toBe(false)
  expect(allTags(SERVERS)).toEqual(['role=db', 'role=edge'])
})

it('requests keep the stored credentials', () => {
  expect(toRequest(base, { enabled: false })).toMatchObject({
    credentials: { kind: 'key', key: null, passphrase: null },
    enabled: false,
    version: 3,
    jump: null,
  })
})

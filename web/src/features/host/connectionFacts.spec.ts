import { describe, expect, it } from 'vitest'
import type { Host, Server } from '../../api/types'
import { comparedFacts, sendingFacts, withNamesOf } from './connectionFacts'

const host = (name: string, more: Partial<Host> = {}) =>
  ({
    id: name,
    name,
    collection_method: 'agent',
    interval_ms: 2_000,
    last_snapshot_ms: null,
    clock_skew_ms: 40,
    facts: {},
    ...more,
  }) as Host

function values(numbers: Record<string, number>) {
  return { last: (metric: string) => numbers[metric] ?? null, instances: () => [] }
}

const server = {
  address: '10.0.0.7',
  port: 22,
  user: 'monitor',
  auth_method: 'key',
  host_key: null,
  enabled: true,
  interval: '15m',
  last_success_ms: null,
  thresholds: { cpu: 90 },
} as unknown as Server

describe('connection facts', () => {
  it('state of an agent is part of the facts if it sends its metrics', () => {
    expect(sendingFacts(host('web'), null)).toEqual([
      ['Last sample', 'Never'],
      ['Interval', '2 s'],
      ['Clock skew', '+40 ms'],
    ])
    const sent = values({ 'agent.spool.snapshots': 0, 'agent.spool.bytes': 0, 'agent.cpu': 0.4, 'agent.memory': 8e6 })
    expect(
      sendingFacts(host('web'), sent)
        .map(([name]) => name)
        .slice(3),
    ).toEqual(['Spool', 'Dropped', 'Missed ticks', 'Agent usage'])
  })

  it('facts of hosts with and without an agent have the same names', () => {
    const agent = comparedFacts(host('web'), values({ 'agent.cpu': 0.4, 'agent.memory': 8e6 }), undefined)
    const ssh = comparedFacts(host('db', { collection_method: 'ssh' }), null, server)
    expect(agent.slice(0, 2)).toEqual([
      ['Host', 'web'],
      ['Collected by', 'Agent'],
    ])
    expect(new Map(ssh).get('Collected by')).toBe('SSH, without an agent')
    const all = withNamesOf(agent, ssh)
    expect(all.slice(0, agent.length)).toEqual(agent)
    expect(new Set(all.map(([name]) => name))).toEqual(new Set([...agent, ...ssh].map(([name]) => name)))
    expect(new Map(all).get('Address')).toBe('')
    expect(new Map(ssh).get('Address')).toBe('monitor@10.0.0.7:22')
  })
})

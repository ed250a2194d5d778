import { describe, expect, it } from 'vitest'
import type { Alert, Incident } from '../../api/types'
import { filterIncidents, firstToExplain, groupIncidents } from './incidentGroups'

const alert = (over: Partial<Alert>): Alert => ({
  id: 'a',
  rule: 'r1',
  rule_name: 'CPU usage',
  host: 'h',
  host_name: 'web-1',
  instance: '',
  metric: 'cpu.usage',
  severity: 'warning',
  summary: '',
  runbook: '',
  pending_since_ms: 0,
  fired_ms: 0,
  resolved_ms: null,
  value: 95,
  threshold: 90,
  peak_value: 95,
  silenced: false,
  resolve_reason: null,
  largest_consumer: null,
  ...over,
})
const incident = (id: string, over: Partial<Incident>, ...alerts: Partial<Alert>[]): Incident => ({
  id,
  title: id,
  severity: 'warning',
  state: 'open',
  phase: 'open',
  opened_ms: 0,
  quiet_since_ms: null,
  reopen_count: 0,
  ack: null,
  firing_count: alerts.length,
  silenced_until_ms: null,
  alerts: alerts.map(alert),
  ...over,
})
const hosts = (...names: string[]) => names.map((host_name) => ({ host_name }))
const none = { text: '', severity: '', state: '' } as const
const rowNames = (incidents: Incident[], open = false) =>
  groupIncidents(incidents, () => open).map(({ severity, count, rows }) => [
    severity,
    count,
    rows.map((row) => (row.kind === 'fold' ? `${row.ruleName} ${row.hosts.join()}` : row.incident.id)),
  ])

describe('groupIncidents', () => {
  it('orders by severity and folds a rule with three hosts', () => {
    const list = [
      incident('one', {}, { host_name: 'web-1' }),
      incident('two', {}, { host_name: 'web-2' }),
      incident('three', {}, { host_name: 'web-3' }),
      incident('other', {}, { rule: 'r2', host_name: 'db-1' }),
      incident('worst', { severity: 'critical' }, { rule: 'r3' }),
    ]
    expect(rowNames(list)).toEqual([
      ['critical', 1, ['worst']],
      ['warning', 4, ['CPU usage web-1,web-2,web-3', 'other']],
    ])
    expect(rowNames(list, true)[1]![2]).toEqual(['CPU usage web-1,web-2,web-3', 'one', 'two', 'three', 'other'])
  })

  it('folds one incident with many hosts and names the worst', () => {
    const [group] = groupIncidents([incident('all', {}, ...hosts('c', 'a', 'b'), { host_name: 'a', value: 990 })], () => false)
    expect(group!.rows[0]).toMatchObject({ kind: 'fold', hosts: ['a', 'b', 'c'], worst: { value: 990 } })
  })

  it('does not fold two hosts', () => {
    expect(rowNames([incident('all', {}, ...hosts('a', 'b'))])).toEqual([['warning', 1, ['all']]])
  })
})

describe('filterIncidents', () => {
  const ack = { by: 'user mira', at_ms: 0, until_ms: null }
  const list = [
    incident('plain', {}, { host_name: '<b>web</b>' }),
    incident('owned', { ack }, { rule_name: 'Memory' }),
    incident('quiet', {}, { silenced: true }),
    incident('over', { firing_count: 0, severity: 'critical' }, { resolved_ms: 5 }),
  ]
  const ids = (filter: Parameters<typeof filterIncidents>[1]) => filterIncidents(list, filter).map(({ id }) => id)

  it('matches words, severity and state', () => {
    expect(ids(none)).toEqual(['plain', 'owned', 'quiet', 'over'])
    expect(ids({ ...none, text: 'MEMORY web' })).toEqual(['owned'])
    expect(ids({ ...none, text: '<b>' })).toEqual(['plain'])
    expect(ids({ ...none, severity: 'critical' })).toEqual(['over'])
    expect(ids({ ...none, state: 'open' })).toEqual(['plain', 'over'])
    expect(ids({ ...none, state: 'acknowledged' })).toEqual(['owned'])
    expect(ids({ ...none, state: 'silenced' })).toEqual(['quiet'])
    expect(ids({ ...none, state: 'recovering' })).toEqual(['over'])
  })
})

describe('firstToExplain', () => {
  it('prefers an incident that nobody has acknowledged', () => {
    const ack = { by: 'user mira', at_ms: 0, until_ms: null }
    const list = [
      incident('old', { severity: 'critical', opened_ms: 1 }, {}),
      incident('owned', { severity: 'critical', opened_ms: 9, ack }, {}),
      incident('warning', { opened_ms: 10 }, {}),
    ]
    expect(firstToExplain(list)).toBe('old')
    expect(firstToExplain([])).toBe('')
  })
})

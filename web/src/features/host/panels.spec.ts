import { expect, test } from 'vitest'
import { HostColumns } from '../../live/columns'
import { panels } from './panels'

/** Titles of the panels of a host with one row of these metrics. */
function titles(metrics: string[]): string[] {
  const columns = new HostColumns()
  columns.setShape(
    's',
    metrics.map((metric) => ({ metric, instance: '', decimals: 0 })),
  )
  columns.tick({ host: 'a', shape: 's', t: 1_000, seq: 1, interval_ms: 0, v: metrics.map(() => 1) })
  return panels(columns).map(({ title }) => title)
}

test('every metric of a script has a chart', () => {
  expect(titles(['cpu.usage'])).toEqual(['CPU'])
  expect(titles(['memory.used_percent', 'queue.length'])).toEqual(['memory.used_percent', 'queue.length'])
})

test('metrics beside those of a collector have a chart', () => {
  const shown = titles(['system.uptime', 'cpu.user', 'cpu.usage', 'agent.memory', 'queue.length'])
  expect(shown).toContain('queue.length')
  expect(shown).not.toContain('agent.memory')
})

// How a host sends, as names with values: of its agent, or of the settings of an agentless host.
import './texts'
import '../servers/texts'
import type { Host, Server } from '../../api/types'
import { t } from '../../i18n'
import { dateTime, duration, format } from '../../lib/format'
import type { LatestSnapshot } from '../../live/columns'

export type Fact = [name: string, value: string]

const secondsOf = (ms: number) => duration(Math.max(ms / 1000, 1))

function skewText(skewMs: number | null | undefined): string {
  return skewMs == null ? '–' : `${skewMs > 0 ? '+' : ''}${format(skewMs, 'milliseconds')}`
}

/** State of what a host sends; metrics of the agent itself are absent for scripts. */
export function sendingFacts(host: Host, values: LatestSnapshot | null): Fact[] {
  const { interval_ms: intervalMs, last_snapshot_ms: lastMs } = host
  const rows: Fact[] = [
    [t('host.connection.lastSample'), lastMs ? dateTime(lastMs) : t('common.never')],
    [t('host.connection.interval'), intervalMs ? secondsOf(intervalMs) : '–'],
    [t('host.connection.skew'), skewText(host.clock_skew_ms)],
  ]
  const get = (metric: string) => values?.last(metric) ?? null
  const spooled = get('agent.spool.snapshots')
  if (spooled !== null) {
    const size = format(get('agent.spool.bytes'), 'bytes')
    rows.push([t('host.connection.spool'), t('host.connection.spooled', { count: spooled, size })])
    rows.push([t('host.connection.dropped'), String(get('agent.spool.dropped') ?? 0)])
    rows.push([t('host.connection.missed'), String(get('agent.ticks_missed') ?? 0)])
  }
  const cpu = get('agent.cpu')
  if (cpu !== null) {
    const usage = { cpu: format(cpu, 'percent'), memory: format(get('agent.memory'), 'bytes') }
    rows.push([t('host.connection.ownUsage'), t('host.connection.usage', usage)])
  }
  return rows
}

/** Settings of an agentless host. */
export function serverFacts(server: Server): Fact[] {
  const percent = (value?: number | null) => (value == null ? t('servers.form.off') : `${value}%`)
  const { cpu, memory, disk } = server.thresholds ?? {}
  const thresholds = { cpu: percent(cpu), memory: percent(memory), disk: percent(disk) }
  return [
    [t('servers.connection.address'), `${server.user}@${server.address}:${server.port}`],
    [t('servers.connection.authentication'), t(server.auth_method === 'key' ? 'servers.form.privateKey' : 'servers.form.password')],
    [t('servers.connection.hostKey'), server.host_key ?? t('servers.connection.firstUse')],
    [t('servers.connection.collection'), server.enabled ? t('common.time.every', { duration: server.interval }) : t('common.disabled')],
    [t('servers.connection.lastSuccess'), server.last_success_ms ? dateTime(server.last_success_ms) : t('common.never')],
    [t('servers.connection.thresholds'), t('servers.connection.thresholdList', thresholds)],
  ]
}

/** What sends the snapshots of a host; a script has no facts. */
function methodOf(host: Host): string {
  const method = host.collection_method === 'ssh' ? 'ssh' : host.facts ? 'agent' : 'script'
  return t(`host.connection.methods.${method}`)
}

/** Facts of a host whose connection is compared. */
export function comparedFacts(host: Host, values: LatestSnapshot | null, server: Server | undefined): Fact[] {
  return [
    [t('common.host'), host.name],
    [t('host.connection.method'), methodOf(host)],
    ...sendingFacts(host, values),
    ...(server ? serverFacts(server) : []),
  ]
}

/** Adds the names of the other host: hosts with an agent and without one have different facts. */
export function withNamesOf(facts: readonly Fact[], others: readonly Fact[]): Fact[] {
  const names = new Set(facts.map(([name]) => name))
  return [...facts, ...others.filter(([name]) => !names.has(name)).map(([name]): Fact => [name, ''])]
}

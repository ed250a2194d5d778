// Charts of the host page: their series, colors and metrics.
import type { Limit } from '../../charts/marks'
import type { Series } from '../../charts/chartProps'
import { t } from '../../i18n'
import { format, type Unit } from '../../lib/format'
import type { Columns } from '../../live/columns'
import type { host } from '../../locales/en/lazy/host'
import './texts'

/** Sections of the dashboard in their order. */
export const SECTIONS = ['cpu', 'memory', 'pressure', 'disk', 'network', 'filesystems', 'sensors', 'processes', 'other'] as const
export type Section = (typeof SECTIONS)[number]

export interface Panel {
  section: Section
  title: string
  unit: Unit
  series: Series[]
  stacked?: boolean
  mirrored?: boolean
  max?: number
  hint?: string
  note?: string
  limits?: Limit[]
  /** Metric whose maximum per point is drawn over a stack. */
  peak?: string
}

/** Metrics of the live subscription: all, because scripts send metrics of any name. */
export const METRICS = ['*']

/** Groups of the metrics of collectors. */
const KNOWN_GROUPS = new Set(
  (
    'agent cpu disk fan file_descriptors filesystem hugepages load memory network pressure ' +
    'processes snapshot sockets swap system tcp temperature udp'
  ).split(' '),
)

/** Metrics of the history request of a host that only scripts send: all that came. */
export const SCRIPT_METRICS = ['*']

/** Metrics of the history request: those of charts, cards and the filesystem table. */
export const HISTORY_METRICS = [
  'cpu.usage,cpu.system,cpu.user,cpu.nice,cpu.iowait,cpu.softirq,cpu.irq,cpu.steal,cpu.cores,cpu.context_switches,cpu.interrupts',
  'cpu.core.usage,load.1m,load.5m,load.15m,memory.used,memory.used_percent,memory.cached,memory.total,swap.used,swap.total',
  'pressure.cpu.some,pressure.memory.some,pressure.io.some,pressure.io.full,network.total.*,disk.total.*,disk.utilization',
  'filesystem.used_percent,filesystem.available,tcp.established,tcp.time_wait,tcp.listen,udp.sockets',
  'processes.total,processes.threads,processes.running,processes.blocked,file_descriptors.allocated,temperature.sensor,system.uptime',
]

const COLORS = ['c1', 'c2', 'c3', 'c4', 'c5', 'c6', 'c7', 'c8']

/** Recent rows that decide which instances of a metric are drawn. */
const RANKING_ROWS = 150

/** One line per instance, in natural order. With more instances than colors, those with the largest recent values. */
function byInstance(columns: Columns, metric: string): Series[] {
  const all = columns.instances(metric)
  const peak = (instance: string) =>
    Math.max(
      ...columns
        .get(metric, instance)
        .slice(-RANKING_ROWS)
        .map((value) => value ?? 0),
    )
  const largest = [...all].sort((a, b) => peak(b) - peak(a)).slice(0, COLORS.length)
  const shown = all.length > COLORS.length ? all.filter((instance) => largest.includes(instance)) : all
  return shown.map((instance, index) => ({ metric, instance, label: instance, color: COLORS[index]! }))
}

function panelTitle(title: string, columns: Columns, metric: string, series: Series[]): string {
  const total = columns.instances(metric).length
  return total > series.length ? t('host.panels.top', { title, shown: series.length, total }) : title
}

type SeriesName = keyof typeof host.panels.series

/** Series without instances; `name` is the key of its label. */
const lineSeries = (metric: string, name: SeriesName, color: string, area = false): Series => ({
  metric,
  label: t(`host.panels.series.${name}`),
  color,
  area,
})

/** Maximum number of cores that are drawn as lines; more are drawn as a heat map. */
export const MAX_CORE_LINES = 8

/** CPU modes that many hosts never use; their series are omitted without values. */
const RARE_CPU_MODES = ['cpu.nice', 'cpu.irq', 'cpu.steal']

/** Number of cores as text; empty if it is unknown. */
function coresText(columns: Columns): string {
  const cores = columns.last('cpu.cores')
  return cores === null ? '' : t('common.coreCount', { count: cores })
}

function cpu(columns: Columns): Panel[] {
  if (columns.has('cpu.usage') && !columns.has('cpu.user')) {
    const series = [{ ...lineSeries('cpu.usage', 'cpu', 'c1', true) }]
    return [{ section: 'cpu', title: t('host.panels.cpu'), unit: 'percent', max: 100, series }]
  }
  const panels: Panel[] = [
    {
      section: 'cpu',
      note: coresText(columns),
      title: t('host.panels.cpu'),
      unit: 'percent',
      stacked: true,
      peak: 'cpu.usage',
      max: 100,
      hint: t('host.panels.cpuHint'),
      series: [
        lineSeries('cpu.system', 'system', 'c2'),
        lineSeries('cpu.user', 'user', 'c1'),
        lineSeries('cpu.nice', 'nice', 'c3'),
        lineSeries('cpu.iowait', 'iowait', 'c6'),
        lineSeries('cpu.softirq', 'softirq', 'c8'),
        lineSeries('cpu.irq', 'irq', 'c4'),
        lineSeries('cpu.steal', 'steal', 'c7'),
      ].filter(({ metric }) => !RARE_CPU_MODES.includes(metric) || columns.get(metric).some((value) => (value ?? 0) > 0)),
    },
  ]
  const cores = columns.instances('cpu.core.usage')
  if (cores.length > 1 && cores.length <= MAX_CORE_LINES) {
    const series = byInstance(columns, 'cpu.core.usage').map((item) => ({ ...item, label: t('host.panels.core', { core: item.label }) }))
    panels.push({ section: 'cpu', title: t('host.panels.cores'), unit: 'percent', max: 100, series })
  }
  return panels
}

function memory(columns: Columns): Panel {
  const series = [lineSeries('memory.used', 'used', 'c4', true), lineSeries('memory.cached', 'cached', 'c5')]
  if (columns.has('swap.total')) series.push(lineSeries('swap.used', 'swap', 'c6'))
  const total = columns.last('memory.total')
  const note = total === null ? '' : format(total, 'bytes')
  return { section: 'memory', title: t('host.panels.memory'), unit: 'bytes', max: total ?? undefined, note, series }
}

function pressure(columns: Columns): Panel[] {
  if (!columns.has('pressure.cpu.some')) return []
  const series = [
    lineSeries('pressure.cpu.some', 'cpu', 'c1'),
    lineSeries('pressure.memory.some', 'memory', 'c4'),
    lineSeries('pressure.io.some', 'io', 'c2'),
    lineSeries('pressure.io.full', 'ioFull', 'c6'),
  ]
  const note = t('host.panels.pressureNote')
  return [{ section: 'pressure', title: t('host.panels.pressure'), unit: 'percent', hint: t('host.panels.pressureHint'), note, series }]
}

/** Metric that only hosts with an agent and agentless hosts have. */
const COLLECTED_METRIC = 'system.uptime'

/** Unit of a metric without a panel, by its name. */
function unitOf(metric: string): Unit {
  if (/percent$|\.usage$/.test(metric)) return 'percent'
  if (/bytes$/.test(metric)) return 'bytes'
  return 'count'
}

/** Panels of metrics that scripts send and no other panel shows, one each. */
function scriptPanels(columns: Columns, shown: Panel[]): Panel[] {
  const covered = new Set(shown.flatMap(({ peak, series }) => [peak, ...series.map(({ metric }) => metric)]))
  const isCustom = (metric: string) => !KNOWN_GROUPS.has(metric.split('.')[0]!) || !columns.has(COLLECTED_METRIC)
  return columns
    .metrics()
    .filter((metric) => isCustom(metric) && !covered.has(metric))
    .map((metric) => {
      const series = columns.has(metric) ? [{ metric, label: metric, color: COLORS[0]!, area: true }] : byInstance(columns, metric)
      return { section: 'other' as const, title: panelTitle(metric, columns, metric, series), unit: unitOf(metric), series }
    })
    .filter(({ series }) => series.some(({ metric, instance }) => columns.has(metric, instance)))
}

/** Load average with the number of cores, above which tasks wait. */
function load(columns: Columns): Panel {
  const cores = columns.last('cpu.cores')
  return {
    section: 'cpu',
    title: t('host.panels.load'),
    unit: 'count',
    hint: t('host.panels.loadHint'),
    note: coresText(columns),
    limits: cores === null ? [] : [{ value: cores, color: 'warning', label: t('host.panels.coresLimit') }],
    series: [lineSeries('load.1m', 'load1', 'c1', true), lineSeries('load.5m', 'load5', 'c4'), lineSeries('load.15m', 'load15', 'c8')],
  }
}

function network(): Panel[] {
  return [
    {
      section: 'network',
      title: t('host.panels.network'),
      unit: 'bytes_per_second',
      mirrored: true,
      note: t('host.panels.networkNote'),
      series: [lineSeries('network.total.rx_bytes', 'received', 'c3', true), lineSeries('network.total.tx_bytes', 'sent', 'c1', true)],
    },
    {
      section: 'network',
      title: t('host.panels.connections'),
      unit: 'count',
      series: [
        lineSeries('tcp.established', 'tcpEstablished', 'c3', true),
        lineSeries('tcp.time_wait', 'tcpTimeWait', 'c7'),
        lineSeries('tcp.listen', 'tcpListening', 'c1'),
        lineSeries('udp.sockets', 'udp', 'c4'),
      ],
    },
  ]
}

function processes(): Panel[] {
  return [
    {
      section: 'processes',
      title: t('host.panels.processes'),
      unit: 'count',
      series: [
        lineSeries('processes.threads', 'threads', 'c1', true),
        lineSeries('processes.total', 'processes', 'c3'),
        lineSeries('processes.blocked', 'blocked', 'c6'),
      ],
    },
    {
      section: 'processes',
      title: t('host.panels.fileDescriptors'),
      unit: 'count',
      series: [lineSeries('file_descriptors.allocated', 'open', 'c5', true)],
    },
  ]
}

/** Charts of the metrics that a host has, in the order of their sections. */
export function panels(columns: Columns): Panel[] {
  const instancePanel = (section: Section, title: string, metric: string, unit: Unit, max?: number): Panel => {
    const series = byInstance(columns, metric)
    return { section, title: panelTitle(title, columns, metric, series), unit, max, series }
  }
  const all: Panel[] = [
    ...cpu(columns),
    load(columns),
    {
      section: 'cpu',
      title: t('host.panels.switches'),
      unit: 'per_second',
      series: [lineSeries('cpu.context_switches', 'switches', 'c4'), lineSeries('cpu.interrupts', 'interrupts', 'c2')],
    },
    memory(columns),
    ...pressure(columns),
    {
      section: 'disk',
      title: t('host.panels.disk'),
      unit: 'bytes_per_second',
      series: [lineSeries('disk.total.read_bytes', 'read', 'c5'), lineSeries('disk.total.write_bytes', 'written', 'c2', true)],
    },
    instancePanel('disk', t('host.panels.diskUtilization'), 'disk.utilization', 'percent', 100),
    ...network(),
    instancePanel('filesystems', t('host.panels.filesystems'), 'filesystem.used_percent', 'percent', 100),
    instancePanel('sensors', t('host.panels.temperature'), 'temperature.sensor', 'celsius'),
    ...processes(),
  ]
  // A live metric without values may arrive with the next tick; in history it does not.
  const isHistory = columns.gaps !== undefined
  const hasValues = (panel: Panel) => panel.series.some(({ metric, instance }) => columns.has(metric, instance))
  const isCollected = columns.has(COLLECTED_METRIC) || columns.times.length === 0
  const shown = all.filter((panel) => panel.series.length > 0 && ((isCollected && !isHistory) || hasValues(panel)))
  return [...shown, ...scriptPanels(columns, shown)]
}

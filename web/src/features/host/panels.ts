// Which series stand in which chart, and in which colour. A metric's name appears in its
// collector and here.
import type { Series } from '../../charts/TimeChart.vue'
import type { Columns } from '../../live/columns'
import type { Unit } from '../../lib/format'

export interface Panel {
  title: string
  unit: Unit
  series: Series[]
  stacked?: boolean
  max?: number
  hint?: string
  /** Drawn over a stack: its largest values. */
  peak?: string
}

/** What the host page subscribes to. */
export const METRICS = [
  'cpu.*',
  'cpu.core.*',
  'load.*',
  'memory.*',
  'swap.*',
  'pressure.*',
  'network.*',
  'disk.*',
  'filesystem.*',
  'tcp.*',
  'udp.*',
  'sockets.*',
  'processes.*',
  'handles.*',
  'temperature.*',
  'system.*',
  'agent.spool.*',
]

/** What it asks history for: what charts, cards and the filesystem table show. */
export const HISTORY_METRICS = [
  'cpu.usage,cpu.system,cpu.user,cpu.nice,cpu.iowait,cpu.softirq,cpu.irq,cpu.steal,cpu.cores,cpu.context_switches,cpu.interrupts',
  'cpu.core.usage,load.1m,load.5m,load.15m,memory.used,memory.used_percent,memory.cached,memory.total,swap.used,swap.total',
  'pressure.cpu.some,pressure.memory.some,pressure.io.some,pressure.io.full,network.total.*,disk.total.*,disk.utilisation',
  'filesystem.used_percent,filesystem.available,tcp.established,tcp.time_wait,tcp.listen,udp.sockets',
  'processes.total,processes.threads,processes.running,processes.blocked,handles.open,temperature.celsius,system.uptime',
]

const COLORS = ['blue', 'orange', 'green', 'purple', 'cyan', 'pink', 'yellow', 'red']

/** A line each; of very many, those with the largest value lately, in the order of their names. */
function byInstance(columns: Columns, metric: string): Series[] {
  const all = columns.instances(metric)
  const peak = (instance: string) =>
    Math.max(
      ...columns
        .get(metric, instance)
        .slice(-150)
        .map((value) => value ?? 0),
    )
  const largest = [...all].sort((a, b) => peak(b) - peak(a)).slice(0, COLORS.length)
  const shown = all.length > COLORS.length ? all.filter((instance) => largest.includes(instance)) : all
  return shown.map((instance, index) => ({ metric, instance, label: instance, color: COLORS[index]! }))
}

const some = (title: string, columns: Columns, metric: string, series: Series[]): string => {
  const all = columns.instances(metric).length
  return all > series.length ? `${title}, the ${series.length} largest of ${all}` : title
}

const line = (metric: string, label: string, color: string, area = false): Series => ({ metric, label, color, area })

/** More cores than this are drawn as a heat map. */
export const CORES_AS_LINES = 8

function cpu(columns: Columns): Panel[] {
  const panels: Panel[] = [
    {
      title: 'CPU',
      unit: 'percent',
      stacked: true,
      peak: 'cpu.usage',
      max: 100,
      hint: 'Time of all processors by what it went to',
      series: [
        line('cpu.system', 'system', 'orange'),
        line('cpu.user', 'user', 'blue'),
        line('cpu.nice', 'nice', 'green'),
        line('cpu.iowait', 'iowait', 'red'),
        line('cpu.softirq', 'softirq', 'purple'),
        line('cpu.irq', 'irq', 'cyan'),
        line('cpu.steal', 'steal', 'yellow'),
      ].filter(
        (series) => !['cpu.nice', 'cpu.irq', 'cpu.steal'].includes(series.metric) || columns.get(series.metric).some((v) => (v ?? 0) > 0),
      ),
    },
  ]
  const cores = columns.instances('cpu.core.usage')
  if (cores.length > 1 && cores.length <= CORES_AS_LINES) {
    const series = byInstance(columns, 'cpu.core.usage').map((item) => ({ ...item, label: `core ${item.label}` }))
    panels.push({ title: 'CPU per core', unit: 'percent', max: 100, series })
  }
  return panels
}

function memory(columns: Columns): Panel {
  const series = [line('memory.used', 'used', 'blue', true), line('memory.cached', 'cached', 'green')]
  if (columns.has('swap.total')) series.push(line('swap.used', 'swap', 'red'))
  return { title: 'Memory', unit: 'bytes', max: columns.last('memory.total') ?? undefined, series }
}

function pressure(columns: Columns): Panel[] {
  if (!columns.has('pressure.cpu.some')) return []
  const series = [
    line('pressure.cpu.some', 'cpu', 'blue'),
    line('pressure.memory.some', 'memory', 'purple'),
    line('pressure.io.some', 'io', 'orange'),
    line('pressure.io.full', 'io, all tasks', 'red'),
  ]
  return [{ title: 'Pressure', unit: 'percent', hint: 'Share of time in which tasks waited for a resource (PSI)', series }]
}

/** Only what this host has. */
export function panels(columns: Columns): Panel[] {
  const ofInstances = (title: string, metric: string, unit: Unit, max?: number): Panel => {
    const series = byInstance(columns, metric)
    return { title: some(title, columns, metric, series), unit, max, series }
  }
  const all: Panel[] = [
    ...cpu(columns),
    memory(columns),
    {
      title: 'Network',
      unit: 'bytes_per_second',
      series: [line('network.total.rx_bytes', 'received', 'green', true), line('network.total.tx_bytes', 'sent', 'blue')],
    },
    {
      title: 'Disk',
      unit: 'bytes_per_second',
      series: [line('disk.total.read_bytes', 'read', 'cyan', true), line('disk.total.write_bytes', 'written', 'orange')],
    },
    {
      title: 'Load',
      unit: 'count',
      hint: 'Tasks that run or wait for disk; compare with the number of cores',
      series: [line('load.1m', '1 min', 'blue', true), line('load.5m', '5 min', 'purple'), line('load.15m', '15 min', 'pink')],
    },
    ...pressure(columns),
    {
      title: 'Connections',
      unit: 'count',
      series: [
        line('tcp.established', 'TCP established', 'green', true),
        line('tcp.time_wait', 'TCP time-wait', 'yellow'),
        line('tcp.listen', 'TCP listening', 'blue'),
        line('udp.sockets', 'UDP', 'purple'),
      ],
    },
    {
      title: 'Processes and threads',
      unit: 'count',
      series: [
        line('processes.threads', 'threads', 'blue', true),
        line('processes.total', 'processes', 'green'),
        line('processes.blocked', 'blocked', 'red'),
      ],
    },
    { title: 'File handles', unit: 'count', series: [line('handles.open', 'open', 'cyan', true)] },
    ofInstances('Disk utilisation', 'disk.utilisation', 'percent', 100),
    {
      title: 'Context switches and interrupts',
      unit: 'per_second',
      series: [line('cpu.context_switches', 'switches', 'purple'), line('cpu.interrupts', 'interrupts', 'orange')],
    },
    ofInstances('Temperature', 'temperature.celsius', 'celsius'),
  ]
  // In the past, what never came will not come; live, it may with the next tick.
  const past = columns.gaps !== undefined
  return all.filter(
    (panel) => panel.series.length > 0 && (!past || panel.series.some(({ metric, instance }) => columns.has(metric, instance))),
  )
}

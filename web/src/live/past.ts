// One host's further past as the hub's history answers it: the same face as live columns, with
// the least and largest beside each average, and gaps with their reasons.
import { getJson } from '../api/http'
import type { ProcessesAnswer, ProcessRow, SeriesAnswer, SnapshotAnswer } from '../api/types'
import { type Columns, type Gap, keyOf, type Latest, type Value } from './columns'

export class PastColumns implements Columns {
  readonly times: number[]
  readonly steps: number[]
  readonly gaps: Gap[]
  /** Seconds of one point; 0 where each tick is one. */
  readonly step: number
  private columns = new Map<string, { v: Value[]; min?: Value[]; max?: Value[] }>()
  private names = new Map<string, Set<string>>()
  private empty: Value[]

  constructor(answer: SeriesAnswer) {
    this.step = answer.step_ms / 1000
    this.times = answer.t.map((t) => t / 1000)
    const near = (at: number) =>
      Math.min(this.times[at]! - (this.times[at - 1] ?? -Infinity), (this.times[at + 1] ?? Infinity) - this.times[at]!)
    this.steps = this.times.map((_, at) => this.step || near(at))
    this.gaps = answer.gaps.map((gap) => ({ from: gap.from_ms / 1000, to: gap.to_ms / 1000, why: gap.why }))
    this.empty = this.times.map(() => null)
    for (const series of answer.series) {
      this.columns.set(keyOf(series.metric, series.instance), series)
      if (!series.instance) continue
      const names = this.names.get(series.metric) ?? new Set<string>()
      this.names.set(series.metric, names.add(series.instance))
    }
  }

  get(metric: string, instance = ''): Value[] {
    return this.columns.get(keyOf(metric, instance))?.v ?? this.empty
  }

  band(metric: string, instance = ''): { min: Value[]; max: Value[] } | null {
    const column = this.columns.get(keyOf(metric, instance))
    return column?.min && column.max ? { min: column.min, max: column.max } : null
  }

  has(metric: string, instance = ''): boolean {
    return this.get(metric, instance).some((value) => value !== null)
  }

  /** The newest value there is in this range. */
  last(metric: string, instance = ''): Value {
    const values = this.get(metric, instance)
    for (let at = values.length - 1; at >= 0; at--) if (values[at] !== null) return values[at]!
    return null
  }

  instances(metric: string): string[] {
    return [...(this.names.get(metric) ?? [])].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }))
  }
}

/** What devices are told apart by: their figures stand below it by name. */
const DIMENSIONS = new Set(['device', 'interface', 'mount'])

const host = (id: string) => `/api/v1/hosts/${encodeURIComponent(id)}`

export async function loadPast(
  id: string,
  metrics: string[],
  from: number,
  to: number,
  points: number,
  signal: AbortSignal,
): Promise<PastColumns> {
  const query = new URLSearchParams({
    metric: metrics.join(','),
    from: String(Math.round(from * 1000)),
    to: String(Math.round(to * 1000)),
    points: String(points),
  })
  return new PastColumns(await getJson<SeriesAnswer>(`${host(id)}/series?${query}`, signal))
}

/** Everything at one second. */
export interface Instant {
  at: number
  rows: ProcessRow[]
  figures: Latest
}

export async function instantAt(id: string, at: number, signal: AbortSignal): Promise<Instant> {
  const { at_ms, snapshot } = await getJson<SnapshotAnswer>(`${host(id)}/snapshot?at=${Math.round(at * 1000)}`, signal)
  return { at: at_ms / 1000, rows: snapshot.processes?.top ?? [], figures: figuresOf(snapshot) }
}

/** The nested form of a snapshot by dotted names, each device's figures by its name:
 *  `network.interface.eth0.rx_bytes` is `network.rx_bytes` of `eth0`. */
export function figuresOf(snapshot: object): Latest {
  const values = new Map<string, number>()
  const names = new Map<string, string[]>()
  const walk = (node: object, path: string, instance: string) => {
    for (const [key, value] of Object.entries(node)) {
      const name = path ? `${path}.${key}` : key
      if (typeof value === 'number') {
        values.set(keyOf(name, instance), value)
        if (instance) names.set(name, [...(names.get(name) ?? []), instance])
      } else if (value === null || typeof value !== 'object' || Array.isArray(value)) continue
      else if (DIMENSIONS.has(key)) for (const [inner, figures] of Object.entries(value as object)) walk(figures as object, path, inner)
      else walk(value as object, name, instance)
    }
  }
  walk(snapshot, '', '')
  return { last: (metric, instance) => values.get(keyOf(metric, instance)) ?? null, instances: (metric) => names.get(metric) ?? [] }
}

/** Who used the host over some time: processor and disk on average, memory at its most. */
export async function processesOver(id: string, from: number, to: number, signal: AbortSignal): Promise<ProcessRow[]> {
  const query = new URLSearchParams({ from: String(Math.round(from * 1000)), to: String(Math.round(to * 1000)), limit: '40' })
  const answer = await getJson<ProcessesAnswer>(`${host(id)}/processes?${query}`, signal)
  const seconds = Math.max(answer.covered_ms / 1000, 1)
  return answer.processes.map((use) => ({
    pid: use.pid,
    name: use.name,
    user: use.user,
    command: use.command,
    state: '',
    cpu_percent: use.cpu_percent_mean,
    memory_bytes: use.memory_bytes_max,
    threads: undefined,
    read_bytes: use.read_bytes / seconds,
    write_bytes: use.written_bytes / seconds,
    started_ms: use.started_ms,
  }))
}

// Columns of one host from the hub's history: same interface as live columns, with minimum and maximum
// per point and gaps with their reasons. Also snapshots and process totals of past times.
import { api, unwrap } from '../api/client'
import type { ProcessRow, SeriesResponse } from '../api/types'
import { type Columns, type Gap, keyOf, type LatestSnapshot, type Value } from './columns'

export class HistoryColumns implements Columns {
  readonly times: number[]
  readonly steps: number[]
  gaps: Gap[]
  /** Seconds per point; 0 if each point is one tick. */
  readonly step: number
  /** Resolution of the stored values: `raw`, `1m` or `1h`. */
  readonly tier: SeriesResponse['tier']
  private columns = new Map<string, { v: Value[]; min?: Value[]; max?: Value[] }>()
  private names = new Map<string, Set<string>>()
  private empty: Value[]

  constructor(answer: SeriesResponse) {
    this.step = answer.step_ms / 1000
    this.tier = answer.tier
    this.times = answer.t.map((t) => t / 1000)
    const near = (at: number) =>
      Math.min(this.times[at]! - (this.times[at - 1] ?? -Infinity), (this.times[at + 1] ?? Infinity) - this.times[at]!)
    this.steps = this.times.map((_, at) => this.step || near(at))
    this.gaps = answer.gaps.map((gap) => ({ from: gap.from_ms / 1000, to: gap.to_ms / 1000, reason: gap.reason }))
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

  /** Newest value in this range, null if there is none. */
  last(metric: string, instance = ''): Value {
    const values = this.get(metric, instance)
    for (let at = values.length - 1; at >= 0; at--) if (values[at] !== null) return values[at]!
    return null
  }

  metrics(): string[] {
    return [...new Set([...this.columns.keys()].map((key) => key.split('|')[0]!))].sort()
  }

  instances(metric: string): string[] {
    return [...(this.names.get(metric) ?? [])].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }))
  }
}

/** Keys of a snapshot below which the values of each instance are grouped by name. */
const DIMENSIONS = new Set(['device', 'interface', 'mount'])

/** Unix seconds as a time of the API. */
const toMs = (seconds: number) => String(Math.round(seconds * 1000))

/** Series of a time range; bounds in Unix seconds. */
export async function loadHistory(
  id: string,
  metrics: string[],
  from: number,
  to: number,
  points: number,
  signal: AbortSignal,
): Promise<HistoryColumns> {
  const query = { metric: metrics.join(','), from: toMs(from), to: toMs(to), points }
  return new HistoryColumns(await unwrap(api.GET('/api/v1/hosts/{id}/series', { params: { path: { id }, query }, signal })))
}

/** All values of a host at one time; `at` in Unix seconds. */
export interface SnapshotAt {
  at: number
  /** Seconds that the values cover: more than the interval of the host if they are averages. */
  resolution: number
  rows: ProcessRow[]
  values: LatestSnapshot
}

export async function loadSnapshotAt(id: string, at: number, signal: AbortSignal): Promise<SnapshotAt> {
  const params = { path: { id }, query: { at: toMs(at) } }
  const { at_ms, resolution_ms, snapshot } = await unwrap(api.GET('/api/v1/hosts/{id}/snapshot', { params, signal }))
  return { at: at_ms / 1000, resolution: resolution_ms / 1000, rows: snapshot.processes?.top ?? [], values: valuesOf(snapshot) }
}

/** Values of a nested snapshot by dotted metric name and instance:
 *  `network.interface.eth0.rx_bytes` is `network.rx_bytes` of `eth0`. */
export function valuesOf(snapshot: object): LatestSnapshot {
  const values = new Map<string, number>()
  const names = new Map<string, string[]>()
  const walk = (node: object, path: string, instance: string) => {
    for (const [key, value] of Object.entries(node)) {
      const name = path ? `${path}.${key}` : key
      if (typeof value === 'number') {
        values.set(keyOf(name, instance), value)
        if (instance) names.set(name, [...(names.get(name) ?? []), instance])
      } else if (value === null || typeof value !== 'object' || Array.isArray(value)) continue
      else if (DIMENSIONS.has(key)) for (const [inner, nested] of Object.entries(value as object)) walk(nested as object, path, inner)
      else walk(value as object, name, instance)
    }
  }
  walk(snapshot, '', '')
  return { last: (metric, instance) => values.get(keyOf(metric, instance)) ?? null, instances: (metric) => names.get(metric) ?? [] }
}

/** Maximum number of processes of a range. */
const MAX_PROCESSES = 40

/** Process with the time in which it was recorded, in Unix seconds, if its figures cover a range. */
export type RecordedProcess = ProcessRow & { recorded?: [number, number] }

/** Top processes of a range: mean CPU and disk rates, maximum memory. */
export async function loadTopProcesses(id: string, from: number, to: number, signal: AbortSignal): Promise<RecordedProcess[]> {
  const params = { path: { id }, query: { from: toMs(from), to: toMs(to), limit: MAX_PROCESSES } }
  const { processes, covered_ms } = await unwrap(api.GET('/api/v1/hosts/{id}/processes', { params, signal }))
  const seconds = Math.max(covered_ms / 1000, 1)
  return processes.map((process) => ({
    pid: process.pid,
    parent_pid: process.parent_pid ?? undefined,
    name: process.name,
    user: process.user,
    command: process.command,
    state: '',
    cpu_percent: process.cpu_percent_mean,
    memory_bytes: process.memory_bytes_max,
    threads: undefined,
    read_bytes: process.read_bytes / seconds,
    write_bytes: process.write_bytes / seconds,
    started_ms: process.started_ms,
    recorded: [process.first_ms / 1000, process.last_ms / 1000] as [number, number],
  }))
}

// Live columns of one host: plain arrays outside Vue's reactivity, which charts read without a copy.
import type { HostBackfill, Column, ProcessRow, Scaled, TickEntry } from '../api/types'

export type Value = number | null

/** Retention of live data in seconds: the longest live window. Older ranges come from the history of the hub. */
export const KEEP_S = 300
/** Seconds beyond `KEEP_S` before old rows are removed, so that ticks rarely move whole arrays. */
const SLACK_S = 120
/** Maximum number of rows: one hour of a paused page at four ticks per second. */
const MAX_ROWS = 15_000
/** Rows without a value after which an instance counts as removed. */
const RECENT_ROWS = 5

export const keyOf = (metric: string, instance = '') => (instance ? `${metric}|${instance}` : metric)

/** Time range without data, in Unix seconds, with its reason as far as the hub knows it. */
export interface Gap {
  from: number
  to: number
  /** Value of the API; its text is `charts.gap.<reason>`. */
  reason: string
}

/** Newest value of each metric, for tables and cards. */
export interface LatestSnapshot {
  last(metric: string, instance?: string): Value
  instances(metric: string): string[]
}

/** Aligned columns over a time range, for charts. */
export interface Columns extends LatestSnapshot {
  /** Unix seconds in ascending order. */
  readonly times: number[]
  /** Seconds that each row covers. */
  readonly steps: number[]
  /** Gaps reported by the hub; if absent, gaps follow from `times` and `steps`. */
  readonly gaps?: Gap[]
  get(metric: string, instance?: string): Value[]
  has(metric: string, instance?: string): boolean
  /** All metrics, in alphabetical order. */
  metrics(): string[]
  /** Minimum and maximum per row; null where a row is a single tick. */
  band?(metric: string, instance?: string): { min: Value[]; max: Value[] } | null
}

export class HostColumns implements Columns {
  /** Unix seconds in ascending order. */
  readonly times: number[] = []
  /** Seconds that each row covers; distinguishes a gap from a long interval. */
  readonly steps: number[] = []
  /** Time of the last tick on the browser's clock, in Unix milliseconds. */
  lastSeenMs = 0
  /** Keeps all rows while a paused page may show them. */
  keepAll = false
  intervalMs = 2_000
  processes: ProcessRow[] = []
  errors: Record<string, string> = {}
  private columns = new Map<string, Value[]>()
  private shapes = new Map<string, { key: string; unit: number }[]>()
  private names = new Map<string, Set<string>>()
  private lastSeq = 0

  /** Column aligned with `times`; all null if the metric is unknown. */
  get(metric: string, instance = ''): Value[] {
    const key = keyOf(metric, instance)
    return this.columns.get(key) ?? this.add(key, metric, instance)
  }

  has(metric: string, instance = ''): boolean {
    return this.columns.get(keyOf(metric, instance))?.some((value) => value !== null) ?? false
  }

  /** Newest value of a column, null if it has none. */
  last(metric: string, instance = ''): Value {
    return this.columns.get(keyOf(metric, instance))?.at(-1) ?? null
  }

  /** All metrics, in alphabetical order. */
  metrics(): string[] {
    return [...new Set([...this.columns.keys()].map((key) => key.split('|')[0]!))].sort()
  }

  /** Instances of a metric that have recent values, in natural order. */
  instances(metric: string): string[] {
    const isPresent = (name: string) =>
      this.get(metric, name)
        .slice(-RECENT_ROWS)
        .some((value) => value !== null)
    const names = [...(this.names.get(metric) ?? [])].filter(isPresent)
    return names.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }))
  }

  get lastMs(): number {
    return (this.times.at(-1) ?? 0) * 1000
  }

  setShape(shape: string, columns: Column[]) {
    if (this.shapes.has(shape)) return
    if (this.shapes.size > 100) this.shapes.clear()
    this.shapes.set(
      shape,
      columns.map(({ metric, instance, decimals }) => {
        this.get(metric, instance)
        return { key: keyOf(metric, instance), unit: 10 ** decimals }
      }),
    )
  }

  backfill(entry: HostBackfill) {
    this.setShape(entry.shape, entry.columns)
    this.intervalMs = entry.interval_ms || this.intervalMs
    const isNewest = (entry.t.at(-1) ?? 0) >= this.lastMs
    for (let row = 0; row < entry.t.length; row++) {
      const t = entry.t[row]!
      // The distance to the nearer neighbor is the interval; a gap or a new interval may be on the other side.
      const near = Math.min(t - (entry.t[row - 1] ?? -Infinity), (entry.t[row + 1] ?? Infinity) - t)
      const step = Number.isFinite(near) ? near : entry.interval_ms
      this.insert(t, entry.shape, step / 1000, (column) => entry.v[column]![row]!)
    }
    if (isNewest && entry.processes) this.processes = entry.processes
    this.trim()
  }

  tick(entry: TickEntry) {
    // A higher sequence number with an earlier time: the host's clock was set back, so rows after
    // this time are wrong.
    if (entry.seq > this.lastSeq && entry.t < this.lastMs && this.lastSeq > 0) this.dropAfter(entry.t / 1000)
    this.lastSeq = Math.max(this.lastSeq, entry.seq)
    const isNewest = entry.t >= this.lastMs
    // Until the hub knows the interval of a script, a row covers the time since the one before.
    const stepMs = entry.interval_ms || Math.max(entry.t - this.lastMs, 0)
    this.insert(entry.t, entry.shape, stepMs / 1000, (column) => entry.v[column]!)
    this.lastSeenMs = Date.now()
    if (isNewest) {
      this.intervalMs = entry.interval_ms || this.intervalMs
      this.processes = entry.processes ?? this.processes
      this.errors = entry.errors ?? {}
    }
    this.trim()
  }

  /** Inserts a row by time; a row of the same time is replaced. */
  private insert(tMs: number, shape: string, step: number, value: (column: number) => Scaled) {
    const columns = this.shapes.get(shape)
    if (!columns) return
    const t = tMs / 1000
    let at = this.times.length
    while (at > 0 && this.times[at - 1]! > t) at--
    if (at > 0 && this.times[at - 1] === t) {
      at--
    } else if (at === this.times.length) {
      this.times.push(t)
      this.steps.push(step)
      for (const values of this.columns.values()) values.push(null)
    } else {
      this.times.splice(at, 0, t)
      this.steps.splice(at, 0, step)
      for (const values of this.columns.values()) values.splice(at, 0, null)
    }
    for (let column = 0; column < columns.length; column++) {
      const { key, unit } = columns[column]!
      const scaled = value(column)
      const values = this.columns.get(key) ?? this.addKey(key)
      values[at] = scaled === null ? null : scaled / unit
    }
  }

  private addKey(key: string): Value[] {
    const [metric = '', instance = ''] = key.split('|')
    return this.add(key, metric, instance)
  }

  private add(key: string, metric: string, instance: string): Value[] {
    const values: Value[] = Array.from({ length: this.times.length }, () => null)
    this.columns.set(key, values)
    if (instance) {
      const names = this.names.get(metric) ?? new Set<string>()
      this.names.set(metric, names.add(instance))
    }
    return values
  }

  private dropAfter(t: number) {
    const length = this.times.findIndex((time) => time > t)
    if (length < 0) return
    this.times.length = length
    this.steps.length = length
    for (const values of this.columns.values()) values.length = length
  }

  private trim() {
    const { times } = this
    const oldest = (times.at(-1) ?? 0) - KEEP_S
    const tooOld = times[0] !== undefined && times[0] < oldest - SLACK_S && !this.keepAll
    if (!tooOld && times.length <= MAX_ROWS) return
    const removed = Math.max(tooOld ? times.findIndex((t) => t >= oldest) : 0, times.length - MAX_ROWS)
    times.splice(0, removed)
    this.steps.splice(0, removed)
    for (const [key, values] of this.columns) {
      values.splice(0, removed)
      if (values.some((value) => value !== null)) continue
      this.columns.delete(key)
      const [metric = '', instance = ''] = key.split('|')
      this.names.get(metric)?.delete(instance)
    }
  }
}

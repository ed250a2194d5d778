// One host's recent past as plain columns, outside Vue's proxies: appended to, sliced from the
// front, read by charts as they are.
import type { BackfillEntry, Column, ProcessRow, Scaled, TickEntry } from '../api/types'

export type Value = number | null

/** Time kept: the longest window that can be shown. */
export const KEEP_S = 1_800
/** The front is cut off in bites, so that appending stays cheap. */
const SLACK_S = 120
/** Rows kept whatever happens: an hour of a paused page at four a second. */
const MOST_ROWS = 15_000
/** A series that was not in the last rows is gone: its device was removed. */
const RECENT_ROWS = 5

export const keyOf = (metric: string, instance = '') => (instance ? `${metric}|${instance}` : metric)

/** A stretch without data, and why as far as the hub can tell. */
export interface Gap {
  from: number
  to: number
  why: string
}

/** What tables read: the newest figure of each metric. */
export interface Latest {
  last(metric: string, instance?: string): Value
  instances(metric: string): string[]
}

/** What charts read: aligned columns over some time. */
export interface Columns extends Latest {
  /** Seconds since 1970, ascending. */
  readonly times: number[]
  /** The time each row stands for, seconds. */
  readonly steps: number[]
  /** Told by the hub; none where the rows' rhythm tells. */
  readonly gaps?: Gap[]
  get(metric: string, instance?: string): Value[]
  has(metric: string, instance?: string): boolean
  /** Least and largest beside the averages, where a row is more than one tick. */
  band?(metric: string, instance?: string): { min: Value[]; max: Value[] } | null
}

export class HostColumns implements Columns {
  /** Seconds since 1970, ascending, as charts want them. */
  readonly times: number[] = []
  /** The time each row stands for, seconds: what tells a gap from a slow rhythm. */
  readonly steps: number[] = []
  /** When this page last heard of the host, by its own clock. */
  heardMs = 0
  /** While set, nothing is forgotten: it may be on screen. */
  keepAll = false
  intervalMs = 2_000
  processes: ProcessRow[] = []
  errors: Record<string, string> = {}
  private columns = new Map<string, Value[]>()
  private shapes = new Map<string, { key: string; unit: number }[]>()
  private names = new Map<string, Set<string>>()
  private lastSeq = 0

  /** A column, aligned with `times`; one that never was is all gaps. */
  get(metric: string, instance = ''): Value[] {
    const key = keyOf(metric, instance)
    return this.columns.get(key) ?? this.add(key, metric, instance)
  }

  has(metric: string, instance = ''): boolean {
    return this.columns.get(keyOf(metric, instance))?.some((value) => value !== null) ?? false
  }

  /** The newest value of a column. */
  last(metric: string, instance = ''): Value {
    return this.columns.get(keyOf(metric, instance))?.at(-1) ?? null
  }

  /** Which instances of a metric are there now. */
  instances(metric: string): string[] {
    const isThere = (name: string) =>
      this.get(metric, name)
        .slice(-RECENT_ROWS)
        .some((value) => value !== null)
    const names = [...(this.names.get(metric) ?? [])].filter(isThere)
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

  backfill(entry: BackfillEntry) {
    this.setShape(entry.shape, entry.columns)
    this.intervalMs = entry.interval_ms || this.intervalMs
    const isNewest = (entry.t.at(-1) ?? 0) >= this.lastMs
    for (let row = 0; row < entry.t.length; row++) {
      const t = entry.t[row]!
      // The nearer neighbour tells the rhythm, whatever gap or change of pace is on the other side.
      const near = Math.min(t - (entry.t[row - 1] ?? -Infinity), (entry.t[row + 1] ?? Infinity) - t)
      const step = Number.isFinite(near) ? near : entry.interval_ms
      this.put(t, entry.shape, step / 1000, (column) => entry.v[column]![row]!)
    }
    if (isNewest && entry.processes) this.processes = entry.processes
    this.trim()
  }

  tick(entry: TickEntry) {
    // A higher number with an earlier time: the host's clock was set back. What it said of
    // times to come was wrong.
    if (entry.seq > this.lastSeq && entry.t < this.lastMs && this.lastSeq > 0) this.forgetAfter(entry.t / 1000)
    this.lastSeq = Math.max(this.lastSeq, entry.seq)
    const isNewest = entry.t >= this.lastMs
    this.put(entry.t, entry.shape, entry.interval_ms / 1000, (column) => entry.v[column]!)
    this.heardMs = Date.now()
    if (isNewest) {
      this.intervalMs = entry.interval_ms || this.intervalMs
      this.processes = entry.processes ?? this.processes
      this.errors = entry.errors ?? {}
    }
    this.trim()
  }

  /** Puts a row in its place by time; one that is there already is replaced. */
  private put(tMs: number, shape: string, step: number, value: (column: number) => Scaled) {
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

  private forgetAfter(t: number) {
    const keep = this.times.findIndex((time) => time > t)
    if (keep < 0) return
    this.times.length = keep
    this.steps.length = keep
    for (const values of this.columns.values()) values.length = keep
  }

  private trim() {
    const { times } = this
    const oldest = (times.at(-1) ?? 0) - KEEP_S
    const tooOld = times[0] !== undefined && times[0] < oldest - SLACK_S && !this.keepAll
    if (!tooOld && times.length <= MOST_ROWS) return
    const over = Math.max(tooOld ? times.findIndex((t) => t >= oldest) : 0, times.length - MOST_ROWS)
    times.splice(0, over)
    this.steps.splice(0, over)
    for (const [key, values] of this.columns) {
      values.splice(0, over)
      if (values.some((value) => value !== null)) continue
      this.columns.delete(key)
      const [metric = '', instance = ''] = key.split('|')
      this.names.get(metric)?.delete(instance)
    }
  }
}

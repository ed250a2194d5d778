// One host's recent past as plain columns, outside Vue's proxies: appended to, sliced from the
// front, read by charts as they are.
import type { BackfillEntry, Column, ProcessRow, Scaled, TickEntry } from '../api/types'

export type Value = number | null

/** Points kept: half an hour at one a second, or an hour at the usual two seconds. */
export const KEEP = 1_800
/** The front is cut off in bites, so that appending stays cheap. */
const SLACK = 200

export const keyOf = (metric: string, instance = '') => (instance ? `${metric}|${instance}` : metric)

export class HostColumns {
  /** Seconds since 1970, ascending, as charts want them. */
  readonly times: number[] = []
  intervalMs = 2_000
  processes: ProcessRow[] = []
  errors: Record<string, string> = {}
  private columns = new Map<string, Value[]>()
  private shapes = new Map<string, { key: string; unit: number }[]>()
  private names = new Map<string, Set<string>>()

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

  /** Which instances of a metric were seen lately. */
  instances(metric: string): string[] {
    const names = [...(this.names.get(metric) ?? [])].filter((name) => this.has(metric, name))
    return names.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }))
  }

  get lastMs(): number {
    return (this.times.at(-1) ?? 0) * 1000
  }

  clear() {
    this.times.length = 0
    this.columns.clear()
    this.names.clear()
    this.processes = []
    this.errors = {}
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
      this.put(entry.t[row]!, entry.shape, (column) => entry.v[column]![row]!)
    }
    if (isNewest && entry.processes) this.processes = entry.processes
    this.trim()
  }

  tick(entry: TickEntry) {
    const isNewest = entry.t >= this.lastMs
    this.put(entry.t, entry.shape, (column) => entry.v[column]!)
    if (isNewest) {
      this.intervalMs = entry.interval_ms || this.intervalMs
      this.processes = entry.processes ?? this.processes
      this.errors = entry.errors ?? {}
    }
    this.trim()
  }

  /** Puts a row in its place by time; one that is there already is replaced. */
  private put(tMs: number, shape: string, value: (column: number) => Scaled) {
    const columns = this.shapes.get(shape)
    if (!columns) return
    const t = tMs / 1000
    let at = this.times.length
    while (at > 0 && this.times[at - 1]! > t) at--
    if (at > 0 && this.times[at - 1] === t) {
      at--
    } else if (at === this.times.length) {
      this.times.push(t)
      for (const values of this.columns.values()) values.push(null)
    } else {
      this.times.splice(at, 0, t)
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

  private trim() {
    const over = this.times.length - KEEP
    if (over <= SLACK) return
    this.times.splice(0, over)
    for (const values of this.columns.values()) values.splice(0, over)
  }
}

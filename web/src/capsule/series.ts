// Series of a host: decoded to columns that charts draw.
import { type Columns, type Gap, keyOf, type Value } from '../live/columns'
import { ByteReader } from './bytes'
import type { CapsuleHost, SeriesName } from './document'
import { CapsuleError, invalid } from './errors'

const HAS_MISSING = 1
const IS_PLAIN = 2

/** Rows of a host; a missing value is NaN. */
export interface HostSeries {
  atMs: Float64Array
  intervalMs: Float64Array
  /** Scaled integers of each series. */
  columns: Float64Array[]
}

function readDifferences(reader: ByteReader, into: Float64Array, from: number, count: number) {
  let previous = 0
  for (let row = from; row < from + count; row++) into[row] = previous += reader.zigzag()
}

function readValues(reader: ByteReader, column: Float64Array, from: number, count: number) {
  const flags = reader.byte()
  if (flags & ~(HAS_MISSING | IS_PLAIN)) throw invalid('flags of a column')
  const bits = flags & HAS_MISSING ? reader.bytes(Math.ceil(count / 8)) : null
  let previous = 0
  for (let row = 0; row < count; row++) {
    if (bits && !(bits[row >> 3]! & (1 << (row & 7)))) continue
    previous = flags & IS_PLAIN ? reader.zigzag64() : previous + reader.zigzag()
    column[from + row] = previous
  }
}

/** Decodes the section of a host with `rows` rows and `series` series. */
export function readSeries(content: Uint8Array, rows: number, series: number): HostSeries {
  const reader = new ByteReader(content)
  const decoded: HostSeries = {
    atMs: new Float64Array(rows),
    intervalMs: new Float64Array(rows),
    columns: Array.from({ length: series }, () => new Float64Array(rows).fill(NaN)),
  }
  let start = 0
  while (!reader.isEmpty) {
    const count = reader.count(rows - start)
    const columns = reader.count(series)
    readDifferences(reader, decoded.atMs, start, count)
    for (let row = Math.max(start, 1); row < start + count; row++)
      if (decoded.atMs[row]! < decoded.atMs[row - 1]!) throw invalid('order of rows')
    readDifferences(reader, decoded.intervalMs, start, count)
    const seen = new Set<number>()
    for (let n = 0; n < columns; n++) {
      const index = reader.count(Math.max(series - 1, 0))
      if (seen.has(index) || index >= series) throw invalid('series occurs twice')
      seen.add(index)
      readValues(reader, decoded.columns[index]!, start, count)
    }
    start += count
  }
  if (start !== rows) throw new CapsuleError('incomplete')
  return decoded
}

/** Gaps of a host with their reasons, in seconds. */
function gapsOf({ events }: CapsuleHost, toMs: number): Gap[] {
  const gaps = events
    .filter(({ kind }) => kind === 'gap' || kind === 'reboot')
    .map(({ kind, from_ms: from, to_ms: to, detail }) => ({
      from: from / 1000,
      to: (to ?? toMs) / 1000,
      reason: kind === 'reboot' ? 'host_restarted' : detail,
    }))
  return gaps.sort((a, b) => a.from - b.from)
}

export class CapsuleColumns implements Columns {
  readonly times: number[]
  readonly steps: number[]
  readonly gaps: Gap[]
  /** Each row is a sample, as in the live columns. */
  readonly step = 0
  private indices = new Map<string, number>()
  private names = new Map<string, string[]>()
  private values = new Map<string, Value[]>()
  private empty: Value[]

  constructor(
    private readonly series: HostSeries,
    host: CapsuleHost,
    toMs: number,
  ) {
    this.times = Array.from(series.atMs, (ms) => ms / 1000)
    this.steps = Array.from(series.intervalMs, (ms) => ms / 1000)
    this.gaps = gapsOf(host, toMs)
    this.empty = this.times.map(() => null)
    host.series.forEach(([metric, instance]: SeriesName, index) => {
      this.indices.set(keyOf(metric, instance), index)
      if (instance) this.names.set(metric, [...(this.names.get(metric) ?? []), instance])
    })
    this.scales = host.series.map(([, , decimals]) => 10 ** decimals)
  }
  private readonly scales: number[]

  /** Values of a series, converted when they are first drawn. */
  get(metric: string, instance = ''): Value[] {
    const key = keyOf(metric, instance)
    const index = this.indices.get(key)
    if (index === undefined) return this.empty
    const known = this.values.get(key)
    if (known) return known
    const scale = this.scales[index]!
    const values = Array.from(this.series.columns[index]!, (value) => (Number.isNaN(value) ? null : value / scale))
    this.values.set(key, values)
    return values
  }

  has(metric: string, instance = ''): boolean {
    const index = this.indices.get(keyOf(metric, instance))
    return index !== undefined && this.series.columns[index]!.some((value) => !Number.isNaN(value))
  }

  /** Newest value of the window, null if there is none. */
  last(metric: string, instance = ''): Value {
    const index = this.indices.get(keyOf(metric, instance))
    if (index === undefined) return null
    const values = this.series.columns[index]!
    for (let row = values.length - 1; row >= 0; row--) if (!Number.isNaN(values[row]!)) return values[row]! / this.scales[index]!
    return null
  }

  metrics(): string[] {
    return [...new Set([...this.indices.keys()].map((key) => key.split('|')[0]!))].sort()
  }

  instances(metric: string): string[] {
    return [...(this.names.get(metric) ?? [])].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }))
  }
}

// Processes of each row of a host.
import type { ProcessRow } from '../api/types'
import { ByteReader } from './bytes'
import { CapsuleError, invalid } from './errors'
import { MAX_PROCESSES, MAX_ROWS, MAX_TEXT_BYTES } from './limits'

type Identity = Pick<ProcessRow, 'pid' | 'parent_pid' | 'name' | 'user' | 'command' | 'started_ms'>

/** Numbers of a sample: process, state, CPU, memory, threads, open files, bytes read and written. */
const FIELDS = 8
const MAX_INT32 = 2 ** 32 - 1

export class ProcessHistory {
  private times: number[] = []
  private starts: number[] = []
  private identities: Identity[] = []
  private samples: Float64Array

  constructor(content: Uint8Array, rows: number) {
    const reader = new ByteReader(content)
    this.samples = new Float64Array(rows * FIELDS)
    const texts: string[] = []
    let at = 0
    let timeMs = 0
    while (!reader.isEmpty) {
      const step = reader.zigzag()
      if (this.times.length >= MAX_ROWS || (this.times.length > 0 && step < 0)) throw invalid('order of rows')
      timeMs += step
      this.times.push(timeMs)
      this.starts.push(at)
      for (let count = reader.count(rows - at); count > 0; count--) this.readSample(reader, at++, texts)
    }
    if (at !== rows) throw new CapsuleError('incomplete')
    this.starts.push(at)
  }

  private readSample(reader: ByteReader, at: number, texts: string[]) {
    const identity = reader.count(Math.min(this.identities.length, MAX_PROCESSES - 1))
    if (identity === this.identities.length) this.identities.push(readIdentity(reader, texts))
    const offset = at * FIELDS
    this.samples[offset] = identity
    const state = reader.varint()
    if (state > 0x10ffff || (state >= 0xd800 && state <= 0xdfff)) throw invalid('state of a process')
    this.samples[offset + 1] = state
    this.samples[offset + 2] = reader.count(MAX_INT32)
    this.samples[offset + 3] = reader.varint()
    this.samples[offset + 4] = reader.count(MAX_INT32)
    for (let field = 5; field < FIELDS; field++) this.samples[offset + field] = reader.varint() - 1
  }

  /** Time of the newest row at or before a time in Unix seconds; null before the first row. */
  rowTime(at: number): number | null {
    const row = this.rowOf(at)
    return row < 0 ? null : this.times[row]! / 1000
  }

  /** Time in Unix seconds, at or near the given one, that has processes: the next one, else the last; null without any. */
  nearestTime(at: number): number | null {
    const shown = this.rowOf(at)
    const isFilled = (row: number) => this.starts[row + 1]! > this.starts[row]!
    const rows = [...this.times.keys()]
    const row = rows.find((row) => row >= Math.max(shown, 0) && isFilled(row)) ?? rows.filter(isFilled).at(-1)
    if (row === undefined) return null
    return row === shown ? at : this.times[row]! / 1000
  }

  /** Processes of the newest row at or before a time in Unix seconds. */
  rowsAt(at: number): ProcessRow[] {
    const row = this.rowOf(at)
    if (row < 0) return []
    const rows: ProcessRow[] = []
    for (let sample = this.starts[row]!; sample < this.starts[row + 1]!; sample++) rows.push(this.process(sample))
    return rows
  }

  private rowOf(at: number): number {
    const timeMs = at * 1000 + 1
    let [low, high] = [0, this.times.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.times[middle]! <= timeMs) low = middle + 1
      else high = middle
    }
    return low - 1
  }

  private process(sample: number): ProcessRow {
    const field = (index: number) => this.samples[sample * FIELDS + index]!
    const optional = (index: number) => (field(index) < 0 ? undefined : field(index))
    return {
      ...this.identities[field(0)]!,
      state: String.fromCodePoint(field(1)),
      cpu_percent: field(2) / 10,
      memory_bytes: field(3),
      threads: field(4),
      open_files: optional(5),
      read_bytes: optional(6),
      write_bytes: optional(7),
    }
  }
}

function readIdentity(reader: ByteReader, texts: string[]): Identity {
  const readText = () => {
    const index = reader.count(texts.length)
    if (index === texts.length) texts.push(reader.text(MAX_TEXT_BYTES))
    return texts[index]!
  }
  const pid = reader.count(MAX_INT32)
  const parent = reader.count(MAX_INT32 + 1)
  const started = reader.zigzag()
  return {
    pid,
    parent_pid: parent === 0 ? undefined : parent - 1,
    started_ms: started,
    name: readText(),
    user: readText(),
    command: readText(),
  }
}

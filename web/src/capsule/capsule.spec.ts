// @vitest-environment node
// Reader of capsules: the golden file of the hub's tests, and hostile files.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { deflateSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { Capsule } from './capsule'
import type { CapsuleDocument } from './document'
import { CapsuleError } from './errors'
import { MAX_FILE_BYTES, MAX_SECTION_BYTES } from './limits'
import { ProcessHistory } from './processes'
import { readSeries } from './series'

const GOLDEN = join(import.meta.dirname, '../../../crates/perfwatch-capsule/src/golden')
const file = new Uint8Array(readFileSync(join(GOLDEN, 'small.pwcap')))

interface GoldenProcess {
  at_ms: number
  pid: number
  [field: string]: unknown
}
interface Golden {
  document: CapsuleDocument
  hosts: { at_ms: number[]; interval_ms: number[]; columns: (number | null)[][]; processes: GoldenProcess[] }[]
}
const golden = JSON.parse(readFileSync(join(GOLDEN, 'small.json'), 'utf8')) as Golden

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest()

/** File with valid checksums; `lengths` are other declared sizes. */
function pack(contents: readonly (string | Uint8Array)[], lengths: readonly number[] = [], sectionCount = contents.length): Uint8Array {
  const sections = contents.map((content) => {
    const bytes = typeof content === 'string' ? new TextEncoder().encode(content) : content
    return { stored: deflateSync(bytes), length: bytes.length }
  })
  const head = Buffer.alloc(12 + sections.length * 40)
  head.write('PWCAP\r\n\x1a', 'latin1')
  head.writeUInt16LE(1, 8)
  head.writeUInt16LE(sectionCount, 10)
  sections.forEach(({ stored, length }, index) => {
    head.writeUInt32LE(stored.length, 12 + index * 40)
    head.writeUInt32LE(lengths[index] ?? length, 16 + index * 40)
    sha256(stored).copy(head, 20 + index * 40)
  })
  return new Uint8Array(Buffer.concat([head, sha256(head), ...sections.map(({ stored }) => stored)]))
}

const failure = async (bytes: Uint8Array) => {
  const error: unknown = await Capsule.open(bytes).then(
    () => 'opened',
    (reason: unknown) => reason,
  )
  return error instanceof CapsuleError ? error.message : error
}

/** Document of the golden file with changes. */
const withChange = (change: (document: any) => void) => {
  const document = structuredClone(golden.document)
  change(document)
  return pack([JSON.stringify(document), '', ''])
}

describe('golden file', () => {
  it('has the document, series and processes that the hub wrote', async () => {
    const capsule = await Capsule.open(file)
    expect(capsule.document).toEqual(golden.document)
    const [host] = golden.hosts
    const columns = await capsule.columns(0)
    expect(columns.times).toEqual(host!.at_ms.map((ms) => ms / 1000))
    expect(columns.steps).toEqual(host!.interval_ms.map((ms) => ms / 1000))
    golden.document.hosts[0]!.series.forEach(([metric, instance, decimals], index) => {
      const column = host!.columns[index]!
      const expected = host!.at_ms.map((_, row) => (column[row] == null ? null : column[row] / 10 ** decimals))
      expect(columns.get(metric, instance), metric).toEqual(expected)
      expect(columns.has(metric, instance)).toBe(expected.some((value) => value !== null))
    })
    expect(columns.gaps).toEqual([{ from: host!.at_ms[2]! / 1000, to: host!.at_ms[3]! / 1000, reason: 'host_off' }])
    const processes = await capsule.processes(0)
    for (const at of new Set(host!.processes.map(({ at_ms }) => at_ms))) {
      const expected = host!.processes
        .filter(({ at_ms }) => at_ms === at)
        .map(({ at_ms: _, cpu_tenths, ...row }) => ({ ...row, cpu_percent: (cpu_tenths as number) / 10 }))
      const rows = processes.rowsAt(at / 1000).map((row) => ({
        ...row,
        parent_pid: row.parent_pid ?? null,
        open_files: row.open_files ?? null,
        read_bytes: row.read_bytes ?? null,
        write_bytes: row.write_bytes ?? null,
      }))
      expect(rows).toEqual(expected)
    }
    expect(processes.rowsAt(host!.at_ms[0]! / 1000 - 1)).toEqual([])
    const filled = processes.nearestTime(host!.at_ms[0]! / 1000 - 1)!
    expect(processes.rowsAt(filled).length).toBeGreaterThan(0)
    expect(processes.nearestTime(filled + 0.1)).toBe(filled + 0.1)
    expect(processes.rowTime(host!.at_ms[3]! / 1000 + 5)).toBe(host!.at_ms[3]! / 1000)
  })
})

describe('hostile files', () => {
  it('are refused for each damaged byte', async () => {
    for (let index = 0; index < file.length; index += 7) {
      const damaged = file.slice()
      damaged[index]! ^= 0x40
      expect(await failure(damaged), `byte ${index}`).not.toBe('opened')
      expect(await failure(file.slice(0, index)), `${index} bytes`).not.toBe('opened')
    }
    expect(await failure(new Uint8Array([...file, 0]))).toBe('incomplete')
    expect(await failure(new TextEncoder().encode('PK another file'))).toBe('notACapsule')
    expect(await failure(new Uint8Array(0))).toBe('notACapsule')
    const newer = file.slice()
    newer[8] = 9
    expect(await failure(newer)).toBe('unsupported: 9')
    expect(await failure(new Uint8Array(MAX_FILE_BYTES + 1))).toBe('tooLarge')
  })

  it('are refused with other sizes than declared', async () => {
    const json = JSON.stringify(golden.document)
    for (const length of [0, 1, json.length - 1, json.length + 1]) {
      expect(await failure(pack([json, '', ''], [length])), String(length)).toBe('invalid: compressed section')
    }
    expect(await failure(pack([json, '', ''], [json.length, MAX_SECTION_BYTES + 1]))).toBe('tooLarge')
    expect(await failure(pack([json, '', ''], [json.length], 60_000))).toBe('invalid: number of sections')
    expect(await failure(pack([json, '']))).toBe('invalid: number of sections')
    expect(await failure(pack([json, '', '', '']))).toBe('invalid: number of sections')
  })

  it('are refused if they decompress to more than declared', async () => {
    const bomb = pack([new Uint8Array(48 * 2 ** 20), '', ''], [1000])
    expect(bomb.length).toBeLessThan(100_000)
    expect(await failure(bomb)).toBe('invalid: compressed section')
  })

  it('are refused with another document', async () => {
    expect(await failure(pack(['{', '', '']))).toBe('invalid: document')
    expect(await failure(pack([new Uint8Array([0x7b, 0xff, 0x7d]), '', '']))).toBe('invalid: document')
    expect(await failure(pack(['[]', '', '']))).toBe('invalid: document')
    const cases: [string, (document: any) => void][] = [
      ['invalid: document.title', (document) => (document.title = { toString: 'x' })],
      ['invalid: document.hosts[0].name', (document) => (document.hosts[0].name = 'x'.repeat(2000))],
      ['invalid: document.hosts[0].rows', (document) => (document.hosts[0].rows = 1e9)],
      ['invalid: document.hosts[0].series[0]', (document) => (document.hosts[0].series[0] = ['cpu.usage'])],
      ['invalid: document.hosts[0].events[0].kind', (document) => (document.hosts[0].events[0].kind = 'constructor')],
      ['invalid: document.hosts[0].events[0].from_ms', (document) => (document.hosts[0].events[0].from_ms = 1e300)],
      ['invalid: document.hosts[0].alerts[0].severity', (document) => (document.hosts[0].alerts[0].severity = 'x')],
      ['invalid: document.incidents[0].timeline[0].kind', (document) => (document.incidents[0].timeline[0].kind = '__proto__')],
      ['invalid: document.hosts', (document) => (document.hosts = Array(51).fill(document.hosts[0]))],
      ['invalid: document.to_ms', (document) => (document.to_ms = document.from_ms)],
      ['invalid: document.masked', (document) => (document.masked = null)],
    ]
    for (const [expected, change] of cases) expect(await failure(withChange(change)), expected).toBe(expected)
    const host = { ...golden.document.hosts[0]!, rows: 90_000, series: Array(200).fill(['cpu.usage', '', 1]) }
    expect(await failure(withChange((document) => (document.hosts = [host])))).toBe('tooLarge')
  })

  it('are refused with other sections', async () => {
    const capsule = await Capsule.open(withChange(() => {}))
    await expect(capsule.columns(0)).rejects.toThrow('incomplete')
    await expect(capsule.processes(0)).rejects.toThrow('incomplete')
    const bad: [number[], string][] = [
      [[3, 0], 'count above its limit'],
      [[1, 2, 2, 2, 0, 0, 2, 0, 0, 2], 'series occurs twice'],
      [[1, 1, 2, 2, 0, 8, 2], 'flags of a column'],
      [[2, 0, 4, 1, 2, 2], 'order of rows'],
      [[1, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], 'integer above 53 bits'],
      [[1, 1, 2, 2, 0, 2, 255, 255, 255, 255, 255, 255, 255, 255, 255, 127], 'varint above 64 bits'],
    ]
    for (const [bytes, message] of bad) expect(() => readSeries(new Uint8Array(bytes), 2, 2), message).toThrow(message)
    expect(() => new ProcessHistory(new Uint8Array([2, 1, 5]), 1)).toThrow('count above its limit')
    expect(() => new ProcessHistory(new Uint8Array([2, 1, 0, 7, 0, 0, 0, 1, 0xff]), 1)).toThrow('text is not UTF-8')
  })
})

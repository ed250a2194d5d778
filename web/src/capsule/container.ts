// Container of a capsule: sizes and checksums of all sections are verified before anything is decompressed.
import { sha256 } from '@noble/hashes/sha2.js'
import { CapsuleError, invalid } from './errors'
import { MAX_CONTENT_BYTES, MAX_FILE_BYTES, MAX_HOSTS, MAX_SECTION_BYTES } from './limits'

const MAGIC = [0x50, 0x57, 0x43, 0x41, 0x50, 0x0d, 0x0a, 0x1a]
const FORMAT_VERSION = 1
const HEADER_BYTES = MAGIC.length + 4
const HASH_BYTES = 32
const ENTRY_BYTES = 8 + HASH_BYTES
const MAX_SECTIONS = 1 + 2 * MAX_HOSTS
/** Bytes that are decompressed at a time, so that a bomb is noticed after a few megabytes. */
const PIECE_BYTES = 4096

export interface Section {
  stored: Uint8Array
  length: number
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index])
}

/** Sections of a file whose checksums are valid. */
export function readSections(file: Uint8Array): Section[] {
  if (file.length > MAX_FILE_BYTES) throw new CapsuleError('tooLarge')
  if (!MAGIC.every((byte, index) => file[index] === byte)) throw new CapsuleError('notACapsule')
  if (file.length < HEADER_BYTES) throw new CapsuleError('incomplete')
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength)
  const version = view.getUint16(MAGIC.length, true)
  if (version !== FORMAT_VERSION) throw new CapsuleError('unsupported', String(version))
  const count = view.getUint16(MAGIC.length + 2, true)
  if (count === 0 || count > MAX_SECTIONS) throw invalid('number of sections')
  const tableEnd = HEADER_BYTES + count * ENTRY_BYTES
  let at = tableEnd + HASH_BYTES
  if (file.length < at) throw new CapsuleError('incomplete')
  if (!isEqual(sha256(file.subarray(0, tableEnd)), file.subarray(tableEnd, at))) throw new CapsuleError('damaged')
  const entries = Array.from({ length: count }, (_, index) => {
    const entry = HEADER_BYTES + index * ENTRY_BYTES
    return { storedLength: view.getUint32(entry, true), length: view.getUint32(entry + 4, true), hashAt: entry + 8 }
  })
  const sum = (key: 'storedLength' | 'length') => entries.reduce((total, entry) => total + entry[key], 0)
  if (sum('storedLength') !== file.length - at) throw new CapsuleError('incomplete')
  if (sum('length') > MAX_CONTENT_BYTES || entries.some(({ length }) => length > MAX_SECTION_BYTES)) throw new CapsuleError('tooLarge')
  return entries.map(({ storedLength, length, hashAt }) => {
    const stored = file.subarray(at, at + storedLength)
    at += storedLength
    if (!isEqual(sha256(stored), file.subarray(hashAt, hashAt + HASH_BYTES))) throw new CapsuleError('damaged')
    return { stored, length }
  })
}

/** Decompresses a section; never more than its declared size. */
export async function readContent({ stored, length }: Section, maxBytes: number): Promise<Uint8Array> {
  if (length > maxBytes) throw new CapsuleError('tooLarge')
  let sent = 0
  const pieces = new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      pull(controller) {
        if (sent >= stored.length) return controller.close()
        controller.enqueue(stored.slice(sent, (sent += PIECE_BYTES)) as Uint8Array<ArrayBuffer>)
      },
    },
    { highWaterMark: 0 },
  )
  const content = new Uint8Array(length)
  let received = 0
  const reader = pieces.pipeThrough(new DecompressionStream('deflate')).getReader()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      if (received + value.length > length) {
        await reader.cancel()
        throw invalid('compressed section')
      }
      content.set(value, received)
      received += value.length
    }
    if (received === length && sent >= stored.length) return content
  } catch {
    // Corrupt compressed data, or more than declared.
  }
  throw invalid('compressed section')
}

// Reader of the varints and texts of a section. Each read checks the end of the section.
import { CapsuleError, invalid } from './errors'

const UTF8 = new TextDecoder('utf-8', { fatal: true })
/** Groups of 7 bits that are exact in a double. */
const MAX_EXACT_BYTES = 8
const MAX_VARINT_BYTES = 10

export function decodeText(bytes: Uint8Array): string {
  try {
    return UTF8.decode(bytes)
  } catch {
    throw invalid('text is not UTF-8')
  }
}

export class ByteReader {
  private at = 0
  constructor(private readonly content: Uint8Array) {}

  get isEmpty() {
    return this.at >= this.content.length
  }

  byte(): number {
    if (this.at >= this.content.length) throw new CapsuleError('incomplete')
    return this.content[this.at++]!
  }

  bytes(length: number): Uint8Array {
    if (length > this.content.length - this.at) throw new CapsuleError('incomplete')
    this.at += length
    return this.content.subarray(this.at - length, this.at)
  }

  /** Unsigned integer of at most 53 bits. */
  varint(): number {
    let value = 0
    let scale = 1
    for (let count = 0; count < MAX_EXACT_BYTES; count++) {
      const byte = this.byte()
      value += (byte & 0x7f) * scale
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) break
        return value
      }
      scale *= 128
    }
    throw invalid('integer above 53 bits')
  }

  zigzag(): number {
    const value = this.varint()
    return value % 2 ? -(value + 1) / 2 : value / 2
  }

  /** Signed integer of 64 bits, rounded to a double. */
  zigzag64(): number {
    let value = 0n
    for (let count = 0; count < MAX_VARINT_BYTES; count++) {
      const byte = this.byte()
      value |= BigInt(byte & 0x7f) << BigInt(7 * count)
      if (byte < 0x80) {
        if (value >= 2n ** 64n) break
        return Number(value & 1n ? -(value >> 1n) - 1n : value >> 1n)
      }
    }
    throw invalid('varint above 64 bits')
  }

  /** Count of at most `max`. */
  count(max: number): number {
    const value = this.varint()
    if (value > max) throw invalid('count above its limit')
    return value
  }

  text(maxBytes: number): string {
    return decodeText(this.bytes(this.count(maxBytes)))
  }
}

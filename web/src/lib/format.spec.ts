import { describe, expect, it } from 'vitest'
import { clock, clockShort, duration, format, pair } from './format'

describe('format', () => {
  it.each([
    [12.345, 'percent', '12.3%'],
    [100, 'percent', '100%'],
    [0, 'bytes', '0 B'],
    [1023, 'bytes', '1023 B'],
    [1024, 'bytes', '1.00 KiB'],
    [1024 * 1024 - 1, 'bytes', '1.00 MiB'],
    [15.5 * 1024 ** 3, 'bytes', '15.5 GiB'],
    [150 * 1024, 'bytes_per_second', '150 KiB/s'],
    [0.5, 'count', '0.50'],
    [417, 'count', '417'],
    [12_345, 'count', '12.3 k'],
    [2_345.6, 'per_second', '2346 /s'],
    [0.42, 'milliseconds', '0.42 ms'],
    [1500, 'milliseconds', '1.50 s'],
    [-1500, 'milliseconds', '-1.50 s'],
    [130_000, 'milliseconds', '2 min 10 s'],
    [31_536_000_001, 'milliseconds', '365 d'],
    [-250.4, 'percent', '-250%'],
    [-5 * 1024 ** 3, 'bytes', '-5.00 GiB'],
    [31_536_000, 'seconds', '365 d'],
    [-130, 'seconds', '-2 min 10 s'],
    [1.5, 'seconds', '1.50 s'],
    [2_500_000_000, 'bits_per_second', '2.50 Gbit/s'],
    [1200, 'rpm', '1200 rpm'],
    [2600, 'megahertz', '2.60 GHz'],
    [null, 'bytes', '–'],
    [NaN, 'count', '–'],
  ] as const)('%s as %s is %s', (value, unit, text) => expect(format(value, unit)).toBe(text))

  it.each([
    [0.1, 0.42, '0.10 / 0.42 ms'],
    [0.1, 1500, '0.10 ms / 1.50 s'],
    [null, null, '– / –'],
    [null, 2, '– / 2.00 ms'],
  ] as const)('a pair of %s and %s is %s', (a, b, text) => expect(pair(a, b, 'milliseconds')).toBe(text))

  it('writes times with two digits, midnight as 00', () => {
    const at = new Date(2026, 0, 5, 0, 5, 7).getTime()
    expect([clock(at), clockShort(at)]).toEqual(['00:05:07', '00:05'])
  })

  it.each([
    [5, '5 s'],
    [60, '1 min'],
    [3700, '1 h 1 min'],
    [200_000, '2 d 7 h'],
    [86_400, '1 d'],
    [null, '–'],
  ])('%s s is %s', (seconds, text) => expect(duration(seconds)).toBe(text))
})

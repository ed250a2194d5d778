import { expect, it } from 'vitest'
import { formatValue, parseValue, span } from './units'

it('durations and sizes are parsed and written back', () => {
  for (const [text, kind, value, written] of [
    ['14d', 'seconds', 1_209_600, '14 d'],
    ['2 weeks', 'seconds', null, ''],
    ['2w', 'seconds', 1_209_600, '14 d'],
    ['1h 30m', 'seconds', 5_400, '90 m'],
    ['250ms', 'milliseconds', 250, '250 ms'],
    ['10 s', 'milliseconds', 10_000, '10 s'],
    ['20 GB', 'bytes', 20 * 2 ** 30, '20 GiB'],
    ['1.5 GiB', 'bytes', 1.5 * 2 ** 30, '1536 MiB'],
    ['20', 'bytes', 20 * 2 ** 30, '20 GiB'],
    ['1.5', 'bytes', 1.5 * 2 ** 30, '1536 MiB'],
    ['12 b', 'bytes', 12, '12 B'],
    ['20 g', 'bytes', null, ''],
    ['256mb', 'bytes', 256 * 2 ** 20, '256 MiB'],
    ['10,000', 'count', 10_000, '10000'],
    ['0d', 'seconds', 0, '0 s'],
    ['0 MB', 'bytes', 0, '0 B'],
    ['', 'seconds', null, ''],
    ['14', 'seconds', null, ''],
    ['-1', 'count', null, ''],
    ['5 parsecs', 'seconds', null, ''],
  ] as const) {
    expect(parseValue(text, kind), text).toBe(value)
    if (value !== null) expect(formatValue(value, kind)).toBe(written)
  }
})

it('spans are written in their largest unit', () => {
  expect([30, 3_600, 7_200, 100_000, 200_000, 41.5 * 86_400, 399 * 86_400, 499 * 86_400, 800 * 86_400].map(span)).toEqual([
    '1 min',
    '60 min',
    '2 hours',
    '27 hours',
    '2 days',
    '41 days',
    '399 days',
    '1.4 years',
    '2.2 years',
  ])
})

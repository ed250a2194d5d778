import { expect, it } from 'vitest'
import { csvTime, toCsv } from './csv'

it('cells are quoted, and formulas in texts are defused', () => {
  const rows = [
    ['a,b', 'say "x"', null, -1.5],
    ['=1+1', ' @x', undefined, 0],
    ['line\nbreak', 'plain-text', '＝x', 3],
  ]
  expect(toCsv(['name', 'b', 'c', 'd'], rows)).toBe(
    'name,b,c,d\r\n"a,b","say ""x""",,-1.5\r\n\'=1+1,\' @x,,0\r\n"line\nbreak",plain-text,\'＝x,3\r\n',
  )
})

it('times are UTC; a missing time is empty', () => {
  expect([csvTime(1_763_719_200_000), csvTime(null), csvTime(0)]).toEqual(['2025-11-21T10:00:00.000Z', '', ''])
})

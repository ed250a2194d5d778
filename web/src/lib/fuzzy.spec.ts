import { describe, expect, it } from 'vitest'
import { fuzzyFilter } from './fuzzy'

const NAMES = ['web-01', 'web-10', 'prod-db-01', 'cache-w1', 'Database backup']
const find = (query: string, limit = 9) => fuzzyFilter(query, NAMES, (name) => name, limit)

describe('fuzzyFilter', () => {
  it('finds contained text before scattered letters', () => {
    expect(find('w1')).toEqual(['cache-w1', 'web-10', 'web-01'])
    expect(find('db')[0]).toBe('prod-db-01')
  })
  it('ignores case and rejects missing letters', () => {
    expect(find('DATA')).toEqual(['Database backup'])
    expect(find('xyz')).toEqual([])
  })
  it('an empty query returns the first items in their order', () => {
    expect(find(' ', 2)).toEqual(['web-01', 'web-10'])
  })
})

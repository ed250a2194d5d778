import { describe, expect, it } from 'vitest'
import { cellAt, mapLayout, moveCell, tileSize } from './mapLayout'

const group = (count: number, name = '') => ({ name, indices: Array.from({ length: count }, (_, at) => at) })

describe('mapLayout', () => {
  it.each([
    [1, 'large'],
    [80, 'large'],
    [81, 'medium'],
    [401, 'small'],
    [4_000, 'small'],
  ])('%i hosts have %s tiles', (count, size) => {
    expect(tileSize(count)).toBe(size)
  })

  it.each([300, 358, 900, 1_400])('tiles fit into %i px and do not overlap', (width) => {
    const layout = mapLayout([group(7, 'a'), group(100, 'b')], width)
    expect(layout.cells).toHaveLength(107)
    for (const [at, cell] of layout.cells.entries()) {
      expect(cell.x + cell.width).toBeLessThanOrEqual(width)
      expect(cell.y + cell.height).toBeLessThanOrEqual(layout.height)
      expect(cellAt(layout, cell.x + cell.width / 2, cell.y + cell.height / 2)).toBe(at)
    }
    expect(layout.headings.map(({ group: { name } }) => name)).toEqual(['a', 'b'])
    expect(cellAt(layout, -5, -5)).toBe(-1)
  })

  it('arrow keys move between tiles and stop at the ends', () => {
    const layout = mapLayout([group(20)], 600)
    expect(moveCell(layout, 0, 'ArrowRight')).toBe(1)
    expect(moveCell(layout, 0, 'ArrowLeft')).toBe(0)
    expect(moveCell(layout, 0, 'ArrowDown')).toBe(layout.columns)
    expect(moveCell(layout, 3, 'End')).toBe(19)
    expect(moveCell(layout, 3, 'x')).toBeNull()
  })
})

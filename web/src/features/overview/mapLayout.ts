// Places of the tiles of the host map.
import type { HostGroup } from './hostRows'

export type TileSize = 'large' | 'medium' | 'small'

export interface MapCell {
  index: number
  x: number
  y: number
  width: number
  height: number
}

export interface MapLayout {
  size: TileSize
  columns: number
  height: number
  cells: MapCell[]
  headings: { group: HostGroup; y: number }[]
}

const PADDING = 14
const HEADING = 24
const GROUP_GAP = 10
/** Smallest width, height and gap of a tile. */
const TILES: Record<TileSize, readonly [number, number, number]> = { large: [106, 58, 6], medium: [46, 32, 4], small: [15, 15, 2] }
/** Number of hosts up to which tiles are large or medium. */
const MAX_LARGE = 80
const MAX_MEDIUM = 400

export function tileSize(count: number): TileSize {
  return count <= MAX_LARGE ? 'large' : count <= MAX_MEDIUM ? 'medium' : 'small'
}

export function mapLayout(groups: readonly HostGroup[], width: number): MapLayout {
  const size = tileSize(groups.reduce((sum, { indices }) => sum + indices.length, 0))
  const [minWidth, height, gap] = TILES[size]
  const space = Math.max(width - 2 * PADDING, minWidth)
  const columns = Math.max(1, Math.floor((space + gap) / (minWidth + gap)))
  const tileWidth = (space - (columns - 1) * gap) / columns
  const cells: MapCell[] = []
  const headings: MapLayout['headings'] = []
  let y = 6
  for (const group of groups) {
    headings.push({ group, y })
    y += HEADING
    group.indices.forEach((index, at) => {
      const [column, row] = [at % columns, Math.floor(at / columns)]
      cells.push({ index, x: PADDING + column * (tileWidth + gap), y: y + row * (height + gap), width: tileWidth, height })
    })
    y += Math.ceil(group.indices.length / columns) * (height + gap) + GROUP_GAP
  }
  return { size, columns, height: y, cells, headings }
}

/** Position of the cell at a point; -1 if there is none. */
export function cellAt({ cells }: MapLayout, x: number, y: number): number {
  return cells.findIndex((cell) => x >= cell.x && x <= cell.x + cell.width && y >= cell.y && y <= cell.y + cell.height)
}

/** Position after an arrow key; null for other keys. */
export function moveCell({ cells, columns }: MapLayout, from: number, key: string): number | null {
  const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }
  if (key === 'Home') return 0
  if (key === 'End') return cells.length - 1
  const step = steps[key]
  if (step === undefined) return null
  const next = from + step
  return next < 0 || next >= cells.length ? from : next
}

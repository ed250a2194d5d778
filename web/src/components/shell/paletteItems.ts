// Entries of the command palette: times, hosts, incidents, pages, actions, metrics.
import type { Component } from 'vue'
import type { RouteLocationRaw } from 'vue-router'
import type { Host } from '../../api/types'
import { dateTime } from '../../lib/format'
import { fuzzyFilter } from '../../lib/fuzzy'
import { parseTime } from '../../lib/timeInput'

export type PaletteGroup = 'time' | 'hosts' | 'incidents' | 'pages' | 'views' | 'actions' | 'metrics'

export interface PaletteItem {
  id: string
  group: PaletteGroup
  text: string
  /** Secondary text: tags of a host, help of a metric. */
  note?: string
  icon?: Component
  /** State of a host, as class of its dot. */
  dot?: string
  to?: RouteLocationRaw
  run?: () => void
}

const GROUPS: readonly PaletteGroup[] = ['time', 'hosts', 'incidents', 'pages', 'views', 'actions', 'metrics']
/** Groups of a query with a prefix. */
const PREFIXES: Record<string, PaletteGroup> = { '#': 'hosts', '>': 'actions', '@': 'metrics' }
const MAX_PER_GROUP = 7
/** Context of a jump to a time, on both sides. */
const CONTEXT_MS = 300_000

/** Jump to a time of a host, from `db-03 yesterday 14:30`. */
export function timeJump(query: string, hosts: readonly Host[], nowMs: number): PaletteItem | null {
  const words = query.trim().split(/\s+/)
  for (let count = Math.min(3, words.length - 1); count > 0; count--) {
    const at = parseTime(words.slice(-count).join(' '), nowMs)
    if (at === null || at > nowMs) continue
    const [host] = fuzzyFilter(words.slice(0, -count).join(' '), hosts, ({ name }) => name, 1)
    if (!host) return null
    const range = { from: String(at - CONTEXT_MS), to: String(Math.min(at + CONTEXT_MS, nowMs)), at: String(at) }
    return { id: `time ${host.id}`, group: 'time', text: host.name, note: dateTime(at), to: { path: `/hosts/${host.id}`, query: range } }
  }
  return null
}

export interface PaletteSection {
  group: PaletteGroup
  items: PaletteItem[]
}

/** Matching items by group, best first. An empty query shows pages and actions. */
export function searchPalette(query: string, items: readonly PaletteItem[], jump: PaletteItem | null): PaletteSection[] {
  const prefix = PREFIXES[query.trim()[0] ?? '']
  const text = prefix ? query.trim().slice(1) : query
  const matchable = (item: PaletteItem) => (query.trim()[0] === '#' ? (item.note ?? '') : `${item.text} ${item.note ?? ''}`)
  return GROUPS.flatMap((group): PaletteSection[] => {
    if (prefix ? group !== prefix : text.trim() === '' && group === 'metrics') return []
    if (group === 'time') return jump ? [{ group, items: [jump] }] : []
    const found = fuzzyFilter(
      text,
      items.filter((item) => item.group === group),
      matchable,
      MAX_PER_GROUP,
    )
    return found.length ? [{ group, items: found }] : []
  })
}

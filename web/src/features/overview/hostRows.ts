// Rows of the host list: filter, sort and group over the columns of the fleet.
import type { OverviewHost, OverviewValues } from '../../api/types'

export const SORT_KEYS = ['severity', 'name', 'cpu', 'memory', 'disk', 'rx', 'load', 'pressure'] as const
export type SortKey = (typeof SORT_KEYS)[number]

export interface Sort {
  key: SortKey
  descending: boolean
}

/** Row of the list: a host by its index, or the heading of a group. */
export type HostRow = { kind: 'host'; index: number } | { kind: 'group'; group: HostGroup }

export interface HostGroup {
  /** Value of the tag; empty for hosts without it. */
  name: string
  indices: number[]
}

type Test = (host: OverviewHost, values: OverviewValues, index: number) => boolean

const NUMBERS: Record<string, (values: OverviewValues, index: number) => number | null | undefined> = {
  cpu: (values, index) => values.cpu[index],
  memory: (values, index) => values.memory[index],
  disk: (values, index) => values.disk[index],
  load: (values, index) => values.load[index],
  pressure: (values, index) => values.pressure[index],
  alerts: (values, index) => values.critical[index]! + values.warning[index]!,
}

function compare(left: number, operator: string, right: number): boolean {
  if (operator === '>') return left > right
  if (operator === '<') return left < right
  return operator === '>=' ? left >= right : left <= right
}

/** Condition of one word: text, `tag:web`, `state:no_data`, `cpu>80`; `-` negates. */
function parseWord(word: string): Test {
  if (word.startsWith('-') && word.length > 1) {
    const test = parseWord(word.slice(1))
    return (...host) => !test(...host)
  }
  const [, metric, operator, number] = /^([a-z]+)(>=|<=|>|<)(\d+(?:\.\d+)?)%?$/.exec(word) ?? []
  if (metric && operator && NUMBERS[metric]) {
    const read = NUMBERS[metric]
    return (_, values, index) => {
      const value = read(values, index)
      return value !== null && value !== undefined && compare(value, operator, Number(number))
    }
  }
  if (word.startsWith('state:')) {
    const state = word.slice(6).replace('-', '_')
    return (_, values, index) => values.status[index]!.startsWith(state)
  }
  if (word.startsWith('tag:')) {
    const tag = word.slice(4)
    return (host) => host.tags.some((candidate) => candidate.toLowerCase().includes(tag))
  }
  return (host) => host.name.toLowerCase().includes(word) || host.tags.some((tag) => tag.toLowerCase().includes(word))
}

/** Words of a filter. */
export const filterWords = (text: string) => text.split(/\s+/).filter((word) => word !== '')

/** Indices of the hosts that match all words. */
export function filterHosts(hosts: readonly OverviewHost[], values: OverviewValues, text: string): number[] {
  const tests = filterWords(text.toLowerCase()).map(parseWord)
  const indices: number[] = []
  hosts.forEach((host, index) => {
    if (tests.every((test) => test(host, values, index))) indices.push(index)
  })
  return indices
}

const STATUS_RANK = { no_data: 2, online: 1, new: 0, disabled: 0, unknown: 0 } as const

/** Rank of the worst state of a host: critical alerts, missing data, warnings, load. */
function severityOf(values: OverviewValues, index: number): number {
  const alerts = values.critical[index]! * 1e6 + values.warning[index]! * 1e3
  const missing = values.status[index] === 'no_data' ? 1e5 : 0
  return alerts + missing + STATUS_RANK[values.status[index]!] * 100 + (values.cpu[index] ?? 0) / 2
}

/** Sorts in place; hosts without a value are last. */
export function sortHosts(indices: number[], hosts: readonly OverviewHost[], values: OverviewValues, { key, descending }: Sort): number[] {
  const sign = descending ? -1 : 1
  if (key === 'name') {
    return indices.sort((a, b) => sign * hosts[a]!.name.localeCompare(hosts[b]!.name, undefined, { numeric: true }))
  }
  const read = (index: number) => (key === 'severity' ? severityOf(values, index) : (values[key][index] ?? null))
  return indices.sort((a, b) => {
    const [left, right] = [read(a), read(b)]
    if (left === null || right === null) return left === right ? a - b : left === null ? 1 : -1
    return sign * (left - right) || a - b
  })
}

/** Keys of the tags `key=value`, most used first. */
export function tagKeys(hosts: readonly OverviewHost[]): string[] {
  const counts = new Map<string, number>()
  for (const { tags } of hosts) {
    for (const tag of tags) {
      const at = tag.indexOf('=')
      if (at > 0) counts.set(tag.slice(0, at), (counts.get(tag.slice(0, at)) ?? 0) + 1)
    }
  }
  return [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).map(([key]) => key)
}

/** Groups by the value of a tag, by name; hosts without the tag are last. */
export function groupHosts(indices: readonly number[], hosts: readonly OverviewHost[], key: string): HostGroup[] {
  const groups = new Map<string, number[]>()
  for (const index of indices) {
    const tag = hosts[index]!.tags.find((candidate) => candidate.startsWith(`${key}=`))
    const name = tag?.slice(key.length + 1) ?? ''
    const members = groups.get(name)
    if (members) members.push(index)
    else groups.set(name, [index])
  }
  const names = [...groups.keys()].sort((a, b) => Number(a === '') - Number(b === '') || a.localeCompare(b, undefined, { numeric: true }))
  return names.map((name) => ({ name, indices: groups.get(name)! }))
}

/** Rows with a heading per group; collapsed groups have only the heading. */
export function toRows(groups: readonly HostGroup[], collapsed: ReadonlySet<string>): HostRow[] {
  return groups.flatMap((group): HostRow[] => [
    { kind: 'group', group },
    ...(collapsed.has(group.name) ? [] : group.indices.map((index): HostRow => ({ kind: 'host', index }))),
  ])
}

/** Mean of the known values of a group; null if none is known. */
export function meanOf(column: readonly (number | null)[], indices: readonly number[]): number | null {
  let [sum, count] = [0, 0]
  for (const index of indices) {
    const value = column[index]
    if (value === null || value === undefined) continue
    sum += value
    count++
  }
  return count ? sum / count : null
}

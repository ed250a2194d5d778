// Lists of processes: filter, order, groups by name, and changes between two lists.
import type { ProcessRow } from '../../api/types'

export type SortKey = 'name' | 'pid' | 'user' | 'cpu_percent' | 'memory_bytes' | 'threads' | 'open_files' | 'read_bytes' | 'write_bytes'

const TEXT_KEYS: readonly SortKey[] = ['name', 'user']
/** Whether the first click on a column sorts alphabetically instead of the largest first. */
export const isText = (key: SortKey) => TEXT_KEYS.includes(key)

export const processKey = (row: ProcessRow) => `${row.pid}-${row.started_ms}`

/** Bytes per second from and to storage; undefined without permission to read them. */
export function ioOf(row: ProcessRow): number | undefined {
  if (row.read_bytes == null && row.write_bytes == null) return undefined
  return (row.read_bytes ?? 0) + (row.write_bytes ?? 0)
}

/** Rows that contain all terms of a filter. */
export function filterProcesses<T extends ProcessRow>(rows: readonly T[], filter: string): T[] {
  const terms = filter.toLowerCase().split(/\s+/).filter(Boolean)
  return rows.filter((row) => {
    const text = `${row.name} ${row.command} ${row.user} ${row.pid}`.toLowerCase()
    return terms.every((term) => text.includes(term))
  })
}

/** Rows in the order of a value; missing values are last in both directions. */
export function sortProcesses<T extends ProcessRow>(
  rows: readonly T[],
  value: (row: T) => string | number | undefined,
  descending: boolean,
): T[] {
  const sign = descending ? -1 : 1
  return [...rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)]
    if (x === undefined || y === undefined) return x === y ? a.pid - b.pid : x === undefined ? 1 : -1
    const difference = typeof x === 'string' ? x.localeCompare(y as string) : x - (y as number)
    return difference === 0 ? a.pid - b.pid : difference * sign
  })
}

const sum = (a: number | undefined, b: number | undefined) => (a === undefined && b === undefined ? undefined : (a ?? 0) + (b ?? 0))

/** Processes of a name as one row: the largest with the sums of all. */
export interface ProcessGroup {
  row: ProcessRow
  members: ProcessRow[]
}

export function groupProcesses(rows: readonly ProcessRow[]): ProcessGroup[] {
  const groups = new Map<string, ProcessGroup>()
  for (const row of rows) {
    const group = groups.get(row.name)
    if (!group) {
      groups.set(row.name, { row: { ...row }, members: [row] })
      continue
    }
    const { row: total, members } = group
    members.push(row)
    total.cpu_percent += row.cpu_percent
    total.memory_bytes += row.memory_bytes
    total.threads = sum(total.threads, row.threads)
    total.open_files = sum(total.open_files, row.open_files)
    total.read_bytes = sum(total.read_bytes, row.read_bytes)
    total.write_bytes = sum(total.write_bytes, row.write_bytes)
    if (total.user !== row.user) total.user = ''
  }
  return [...groups.values()]
}

export interface ProcessChanges {
  /** Keys of processes that started since the earlier list. */
  started: ReadonlySet<string>
  /** Number of processes of the earlier list that are not in the later one. */
  gone: number
  /** Name with the largest change of processor usage, in cores. */
  mover: { name: string; cores: number } | null
}

/** Minimum change of processor usage that is worth a mention, in cores. */
const MIN_MOVE_CORES = 0.1

/** Changes since an earlier list. Lists contain the largest processes only, so that a process is new by its start time. */
export function compareProcesses(now: readonly ProcessRow[], before: readonly ProcessRow[], beforeAt: number): ProcessChanges {
  const started = new Set(now.filter((row) => row.started_ms > beforeAt * 1000).map(processKey))
  const present = new Set(now.map(processKey))
  const gone = before.filter((row) => !present.has(processKey(row))).length
  const cores = new Map<string, number>()
  for (const row of now) cores.set(row.name, (cores.get(row.name) ?? 0) + row.cpu_percent / 100)
  for (const row of before) cores.set(row.name, (cores.get(row.name) ?? 0) - row.cpu_percent / 100)
  const [largest] = [...cores].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]))
  const mover = largest && Math.abs(largest[1]) >= MIN_MOVE_CORES ? { name: largest[0], cores: largest[1] } : null
  return { started, gone, mover }
}

/** Usage of all processes of a name. */
export interface NameUsage {
  count: number
  cpu: number
  memory: number
  io: number
}

/** Processes of a name in two lists; undefined if it is not among the largest of a list. */
export interface ComparedName {
  name: string
  left?: NameUsage
  right?: NameUsage
  /** Usage of the left minus that of the right list. */
  difference: NameUsage
}

const NO_USAGE: NameUsage = { count: 0, cpu: 0, memory: 0, io: 0 }

function usageByName(rows: readonly ProcessRow[]): Map<string, NameUsage> {
  const usages = groupProcesses(rows).map(({ row, members }): [string, NameUsage] => [
    row.name,
    { count: members.length, cpu: row.cpu_percent, memory: row.memory_bytes, io: ioOf(row) ?? 0 },
  ])
  return new Map(usages)
}

/** Names of two lists of other times or hosts: process ids would not match. */
export function compareByName(left: readonly ProcessRow[], right: readonly ProcessRow[]): ComparedName[] {
  const [lefts, rights] = [usageByName(left), usageByName(right)]
  return [...new Set([...lefts.keys(), ...rights.keys()])].map((name) => {
    const [a, b] = [lefts.get(name), rights.get(name)]
    const minus = (key: keyof NameUsage) => (a ?? NO_USAGE)[key] - (b ?? NO_USAGE)[key]
    return { name, left: a, right: b, difference: { count: minus('count'), cpu: minus('cpu'), memory: minus('memory'), io: minus('io') } }
  })
}

/** Line of a process tree. */
export interface TreeLine<T extends ProcessRow> {
  key: string
  /** Process of the line; null for a parent that is not among the recorded processes. */
  row: T | null
  pid: number
  depth: number
}

/** Whether `parent` can be the parent of `row`: a process id is used again after its process ended. */
const isParent = <T extends ProcessRow>(parent: T | undefined, row: T): parent is T =>
  parent !== undefined && parent !== row && parent.started_ms <= row.started_ms

/**
 * Processes below their parents, siblings in the order of `rows`. Only the largest processes are recorded: a parent that is
 * not among them has a line without values if it has several children, and is left out otherwise.
 */
export function processTree<T extends ProcessRow>(rows: readonly T[]): TreeLine<T>[] {
  const byPid = new Map(rows.map((row) => [row.pid, row]))
  const children = new Map<number, T[]>()
  const orphans = new Map<number, T[]>()
  for (const row of rows) {
    const parent = row.parent_pid ?? 0
    const lists = isParent(byPid.get(parent), row) ? children : orphans
    lists.set(parent, [...(lists.get(parent) ?? []), row])
  }
  const lines: TreeLine<T>[] = []
  const added = new Set<T>()
  const add = (row: T, depth: number) => {
    if (added.has(row)) return
    added.add(row)
    lines.push({ key: processKey(row), row, pid: row.pid, depth })
    if (byPid.get(row.pid) === row) for (const child of children.get(row.pid) ?? []) add(child, depth + 1)
  }
  /** First known ancestor; processes that name each other as parents end the search. */
  const rootOf = (row: T): T => {
    const seen = new Set<T>()
    let root = row
    for (;;) {
      seen.add(root)
      const parent = byPid.get(root.parent_pid ?? 0)
      if (!isParent(parent, root) || seen.has(parent)) return root
      root = parent
    }
  }
  const addedParents = new Set<number>()
  // A tree is where its first process is in the list.
  for (const row of rows) {
    const root = rootOf(row)
    const parent = root.parent_pid ?? 0
    const siblings = orphans.get(parent)?.includes(root) ? orphans.get(parent)! : []
    // The first process is the parent of nearly all services: a line for it would only indent the list.
    if (parent <= 1 || siblings.length < 2) add(root, 0)
    else if (!addedParents.has(parent)) {
      addedParents.add(parent)
      lines.push({ key: `parent-${parent}`, row: null, pid: parent, depth: 0 })
      for (const sibling of siblings) add(sibling, 1)
    }
  }
  return lines
}

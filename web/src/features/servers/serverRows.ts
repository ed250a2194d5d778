// Rows of the list of agentless hosts: state, filter and sort. Pure functions.
import type { Server, ServerRequest } from '../../api/types'

export const SERVER_STATES = ['ok', 'failing', 'blocked', 'never', 'disabled'] as const
export type ServerState = (typeof SERVER_STATES)[number]

export const SORT_KEYS = ['name', 'state', 'age', 'duration', 'cpu', 'memory', 'disk', 'load', 'next'] as const
export type SortKey = (typeof SORT_KEYS)[number]

export interface Sort {
  key: SortKey
  descending: boolean
}

/** A summary this much older than the last success belongs to an earlier collection. */
const MAX_SUMMARY_AGE_MS = 60_000
/** Order of the states by their need of attention. */
const STATE_RANK: Record<ServerState, number> = { blocked: 4, failing: 3, ok: 2, never: 1, disabled: 0 }

export function stateOf(server: Server): ServerState {
  if (!server.enabled) return 'disabled'
  if (server.blocked) return 'blocked'
  if (!server.last) return 'never'
  return server.last.cause ? 'failing' : 'ok'
}

/** Whether the values are from before the last collection: that one failed, or another hub made it. */
export function isOutdated({ summary, last, last_success_ms }: Server): boolean {
  return summary !== null && (Boolean(last?.cause) || (last_success_ms ?? 0) - summary.at_ms > MAX_SUMMARY_AGE_MS)
}

export interface ServerFilter {
  text: string
  state: ServerState | ''
  tag: string
}

function matchesText(server: Server, text: string): boolean {
  const words = text.toLowerCase().split(/\s+/)
  const contains = (word: string) => [server.name, server.address, ...server.tags].some((value) => value.toLowerCase().includes(word))
  return words.every((word) => (word.length > 1 && word.startsWith('-') ? !contains(word.slice(1)) : contains(word)))
}

const READ: Record<Exclude<SortKey, 'name'>, (server: Server) => number | null | undefined> = {
  state: (server) => STATE_RANK[stateOf(server)],
  age: (server) => server.last?.finished_ms,
  duration: (server) => server.last?.duration_ms,
  cpu: (server) => server.summary?.cpu,
  memory: (server) => server.summary?.memory,
  disk: (server) => server.summary?.disk?.percent,
  load: (server) => server.summary?.load,
  next: (server) => server.next_run_ms,
}

/** Matching servers in their order; servers without a value are last. */
export function shownServers(servers: readonly Server[], filter: ServerFilter, { key, descending }: Sort): Server[] {
  const matching = servers.filter(
    (server) =>
      matchesText(server, filter.text.trim()) &&
      (filter.state === '' || stateOf(server) === filter.state) &&
      (filter.tag === '' || server.tags.includes(filter.tag)),
  )
  const sign = descending ? -1 : 1
  const byName = (a: Server, b: Server) => a.name.localeCompare(b.name, undefined, { numeric: true })
  if (key === 'name') return matching.sort((a, b) => sign * byName(a, b))
  // Ages grow while times do: the newest collection is the youngest.
  const read = key === 'age' ? (server: Server) => negated(READ.age(server)) : READ[key]
  return matching.sort((a, b) => {
    const [left, right] = [read(a) ?? null, read(b) ?? null]
    if (left === null || right === null) return left === right ? byName(a, b) : left === null ? 1 : -1
    return sign * (left - right) || byName(a, b)
  })
}

const negated = (value: number | null | undefined) => (value == null ? null : -value)

/** All tags of the servers, by name. */
export const allTags = (servers: readonly Server[]) => [...new Set(servers.flatMap(({ tags }) => tags))].sort()

/** Request that keeps a server, its credentials included, apart from the changes. */
export function toRequest(server: Server, changes: Partial<ServerRequest> = {}): ServerRequest {
  return {
    name: server.name,
    address: server.address,
    port: server.port,
    user: server.user,
    credentials: server.auth_method === 'password' ? { kind: 'password', password: null } : { kind: 'key', key: null, passphrase: null },
    jump: server.jump,
    passwords: {},
    tags: server.tags,
    interval: server.interval,
    thresholds: server.thresholds,
    enabled: server.enabled,
    version: server.version,
    ...changes,
  }
}

// Form of a status page: its input, and the request that it becomes.
import type { StatusPage } from '../../api/types'
import type { components } from '../../api/schema'

export type StatusMetric = components['schemas']['StatusMetric']
export const METRICS: readonly StatusMetric[] = ['cpu', 'memory', 'disk', 'load', 'network']
/** Hosts of a page, as the hub limits them. */
export const MAX_HOSTS = 50
const DAY_MS = 86_400_000

export interface HostInput {
  host: string
  name: string
}

/** Group with a key of this form, so that inputs keep their focus. */
export interface GroupInput {
  key: number
  name: string
  hosts: HostInput[]
}

export interface StatusPageInput {
  title: string
  description: string
  /** Days until the link expires; empty leaves the expiry of an existing page. */
  days: string
  groups: GroupInput[]
  metrics: StatusMetric[]
  incidents: boolean
}

let lastKey = 0

export function newGroup(name: string, hosts: HostInput[] = []): GroupInput {
  lastKey += 1
  return { key: lastKey, name, hosts }
}

/** Input of a page; of a new page without one. */
export function toInput(page: StatusPage | null, defaultGroup: string): StatusPageInput {
  if (!page) return { title: '', description: '', days: '90', groups: [newGroup(defaultGroup)], metrics: [], incidents: true }
  const { description, groups, metrics, incidents } = page.content
  return {
    title: page.title,
    description: description ?? '',
    days: '',
    groups: groups.map(({ name, hosts }) =>
      newGroup(
        name,
        hosts.map((host) => ({ ...host })),
      ),
    ),
    metrics: [...(metrics ?? [])],
    incidents: incidents ?? false,
  }
}

/** Time at which a link of so many days ends. */
export const expiryMs = (days: string, nowMs: number) => nowMs + Number(days) * DAY_MS

/** Request of the input. Groups without hosts are left out. */
export function toRequest(input: StatusPageInput, page: StatusPage | null, nowMs: number) {
  const groups = input.groups
    .filter(({ hosts }) => hosts.length > 0)
    .map(({ name, hosts }) => ({ name, hosts: hosts.map((host) => ({ ...host })) }))
  return {
    title: input.title,
    content: { description: input.description, groups, metrics: [...input.metrics], incidents: input.incidents },
    expires_ms: input.days || !page ? expiryMs(input.days || '90', nowMs) : page.expires_ms,
    enabled: page?.enabled ?? true,
    updated_ms: page?.updated_ms ?? null,
  }
}

/** Request that only switches the link of a page. */
export const toSwitchRequest = (page: StatusPage, enabled: boolean) => ({
  title: page.title,
  content: page.content,
  expires_ms: page.expires_ms,
  enabled,
  updated_ms: page.updated_ms,
})

// Form of a status page: its input, and the request that it becomes.
import type { StatusPage } from '../../api/types'
import type { components } from '../../api/schema'

export type StatusMetric = components['schemas']['StatusMetric']
export const METRICS: readonly StatusMetric[] = ['cpu', 'memory', 'disk', 'load', 'network']
/** Hosts of a page, as the hub limits them. */
export const MAX_HOSTS = 50
/** Announcements of a page, and updates of each, as the hub limits them. */
export const MAX_ANNOUNCEMENTS = 5
export const MAX_UPDATES = 10
export type AnnouncementState = components['schemas']['AnnouncementState']
export const ANNOUNCEMENT_STATES: readonly AnnouncementState[] = [
  'investigating',
  'identified',
  'monitoring',
  'resolved',
  'maintenance',
  'information',
]
const DAY_MS = 86_400_000

export interface HostInput {
  host: string
  name: string
}

/** Host without a shown name: its own name would tell visitors what the page hides. */
export const newHost = (host: string): HostInput => ({ host, name: '' })

/** Group with a key of this form, so that inputs keep their focus. */
export interface GroupInput {
  key: number
  name: string
  hosts: HostInput[]
}

/** Announcement with a key of this form and the text of its next update. */
export interface AnnouncementInput {
  key: number
  title: string
  state: AnnouncementState
  text: string
  updates: { at_ms: number; text: string }[]
}

export interface StatusPageInput {
  title: string
  description: string
  /** Days until the link expires; empty leaves the expiry of an existing page. */
  days: string
  groups: GroupInput[]
  metrics: StatusMetric[]
  incidents: boolean
  announcements: AnnouncementInput[]
}

let lastKey = 0

export function newGroup(name: string, hosts: HostInput[] = []): GroupInput {
  lastKey += 1
  return { key: lastKey, name, hosts }
}

export function newAnnouncement(): AnnouncementInput {
  lastKey += 1
  return { key: lastKey, title: '', state: 'investigating', text: '', updates: [] }
}

/** Input of a page; of a new page without one. */
export function toInput(page: StatusPage | null, defaultGroup: string): StatusPageInput {
  if (!page)
    return { title: '', description: '', days: '90', groups: [newGroup(defaultGroup)], metrics: [], incidents: true, announcements: [] }
  const { description, groups, metrics, incidents, announcements } = page.content
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
    announcements: (announcements ?? []).map(({ title, state, updates }) => ({
      ...newAnnouncement(),
      title,
      state,
      updates: updates.map(({ at_ms, text }) => ({ at_ms: at_ms ?? 0, text })),
    })),
  }
}

/** Time at which a link of so many days ends. */
export const expiryMs = (days: string, nowMs: number) => nowMs + Number(days) * DAY_MS

/** Request of the input. Groups without hosts are left out. */
export function toRequest(input: StatusPageInput, page: StatusPage | null, nowMs: number) {
  const groups = input.groups
    .filter(({ hosts }) => hosts.length > 0)
    .map(({ name, hosts }) => ({ name, hosts: hosts.map((host) => ({ ...host })) }))
  // The hub sets the time of a new text.
  const announcements = input.announcements.map(({ title, state, text, updates }) => ({
    title,
    state,
    updates: [...(text.trim() ? [{ at_ms: 0, text }] : []), ...updates],
  }))
  return {
    title: input.title,
    content: { description: input.description, groups, metrics: [...input.metrics], incidents: input.incidents, announcements },
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

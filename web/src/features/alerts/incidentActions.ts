// Changes of incidents that the list and the page of an incident share.
import { api, unwrap } from '../../api/client'
import { invalidateQueries } from '../../api/query'
import type { Incident } from '../../api/types'
import { hubNow } from '../../lib/hubClock'
import { firingAlerts } from './incidentGroups'

const HOUR_MS = 3_600_000

export const reloadIncidents = () =>
  invalidateQueries('/api/v1/incidents/{id}', '/api/v1/incidents', '/api/v1/incidents/history', '/api/v1/silences', '/api/v1/alerts/stats')

export async function acknowledge(ids: readonly string[], duration = '', comment = '') {
  try {
    for (const id of ids) {
      const body = { duration: duration || null, comment }
      await unwrap(api.POST('/api/v1/incidents/{id}/ack', { params: { path: { id } }, body }))
    }
  } finally {
    await reloadIncidents()
  }
}

export async function unacknowledge(ids: readonly string[]) {
  try {
    for (const id of ids) await unwrap(api.DELETE('/api/v1/incidents/{id}/ack', { params: { path: { id } } }))
  } finally {
    await reloadIncidents()
  }
}

/** Hosts by rule of the firing alerts; a rule about the hub has none. */
export function silencedHosts(incidents: readonly Incident[]): Map<string, string[]> {
  const byRule = new Map<string, Set<string>>()
  for (const alert of incidents.flatMap(firingAlerts)) {
    const hosts = byRule.get(alert.rule) ?? new Set()
    if (alert.host) hosts.add(alert.host)
    byRule.set(alert.rule, hosts)
  }
  return new Map([...byRule].map(([rule, hosts]) => [rule, [...hosts]]))
}

/** Silences the rules of the firing alerts on their hosts: one silence per rule, so that nothing else is held back. */
export async function silence(incidents: readonly Incident[], hours: number | null, comment: string) {
  const endsMs = hours === null ? null : Math.round(hubNow() + hours * HOUR_MS)
  try {
    for (const [rule, hosts] of silencedHosts(incidents)) {
      const matcher = { hosts, tags: [], rules: [rule] }
      await unwrap(api.POST('/api/v1/silences', { body: { matcher, comment, ends_ms: endsMs, weekly: null } }))
    }
  } finally {
    await reloadIncidents()
  }
}

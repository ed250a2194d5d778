// Subjects of exports: windows around incidents and ranges of hosts.
import type { Incident } from '../../api/types'
import { MAX_HOSTS, MAX_WINDOW_MS } from '../../capsule/limits'
import type { ExportSubject } from './ExportDialog.vue'

const BEFORE_MS = 15 * 60_000
const AFTER_MS = 5 * 60_000

/** Incident with its hosts, from before it began until after it was resolved. Of an incident whose alerts fired long before it
 *  opened, the window begins at its opening. */
export function incidentSubject({ id, title, opened_ms: openedMs, alerts }: Incident, nowMs: number): ExportSubject {
  const hosts = [...new Set(alerts.flatMap(({ host }) => (host ? [host] : [])))]
  const firstMs = Math.min(openedMs, ...alerts.map(({ fired_ms }) => fired_ms))
  const ends = alerts.map(({ resolved_ms }) => (resolved_ms === null ? nowMs : resolved_ms + AFTER_MS))
  const endMs = Math.min(Math.max(...ends, openedMs), nowMs)
  const fromMs = (endMs - firstMs + BEFORE_MS > MAX_WINDOW_MS ? openedMs : firstMs) - BEFORE_MS
  return { title, incident: id, hosts: hosts.slice(0, MAX_HOSTS), fromMs, toMs: Math.min(endMs, fromMs + MAX_WINDOW_MS) }
}

/** Host with its visible range in Unix seconds; of a longer range the last day. */
export function hostSubject(host: { id: string; name: string }, [from, to]: readonly [number, number], nowMs: number): ExportSubject {
  const toMs = Math.min(Math.round(to * 1000), nowMs)
  return { title: host.name, hosts: [host.id], fromMs: Math.max(Math.round(from * 1000), toMs - MAX_WINDOW_MS), toMs }
}

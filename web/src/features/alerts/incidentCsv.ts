// Incident history as CSV.
import { api, unwrap } from '../../api/client'
import type { GetInit } from '../../api/query'
import type { Incident } from '../../api/types'
import { csvTime, toCsv } from '../../csv'
import { leadAlert } from './incidentGroups'

type HistoryQuery = NonNullable<NonNullable<NonNullable<GetInit<'/api/v1/incidents/history'>>['params']>['query']>

const PAGE_LEN = 200
/** Incidents of a file at most: the hub reads each with its alerts. */
const MAX_INCIDENTS = 5_000

/** All incidents that match a filter, newest first; `isComplete` is false if there are more than a file takes. */
export async function loadAllIncidents(filter: HistoryQuery): Promise<{ incidents: Incident[]; isComplete: boolean }> {
  const incidents: Incident[] = []
  let after: string | undefined
  do {
    const query = { ...filter, limit: PAGE_LEN, after }
    const page = await unwrap(api.GET('/api/v1/incidents/history', { params: { query } }))
    incidents.push(...page.incidents)
    after = page.next ?? undefined
  } while (after && incidents.length < MAX_INCIDENTS)
  return { incidents: incidents.slice(0, MAX_INCIDENTS), isComplete: !after && incidents.length <= MAX_INCIDENTS }
}

const HEADER = [
  'opened',
  'resolved',
  'severity',
  'state',
  'title',
  'rule',
  'hosts',
  'metric',
  'instance',
  'peak_value',
  'threshold',
  'largest_consumer',
  'acknowledged_by',
  'id',
]

export function incidentsCsv(incidents: readonly Incident[]): string {
  const rows = incidents.map((incident) => {
    const alert = leadAlert(incident)
    const hosts = [...new Set(incident.alerts.map(({ host_name: name }) => name))].join(' ')
    const resolvedMs = incident.phase === 'resolved' ? incident.quiet_since_ms : null
    const consumer = alert?.largest_consumer?.name
    return [
      csvTime(incident.opened_ms),
      csvTime(resolvedMs),
      incident.severity,
      incident.state,
      incident.title,
      alert?.rule_name,
      hosts,
      alert?.metric,
      alert?.instance,
      alert?.peak_value,
      alert?.threshold,
      consumer,
      incident.ack?.by,
      incident.id,
    ]
  })
  return toCsv(HEADER, rows)
}

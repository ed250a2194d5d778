// Rows of the list of open incidents: filtered, then grouped by severity and by rule.
import type { Alert, Incident, Severity } from '../../api/types'

/** Firing hosts from which the incidents of a rule fold into one line. */
export const MIN_FOLDED_HOSTS = 3

export const INCIDENT_STATES = ['open', 'acknowledged', 'silenced', 'recovering'] as const
export type IncidentStateFilter = (typeof INCIDENT_STATES)[number]

export interface IncidentFilter {
  text: string
  severity: Severity | ''
  state: IncidentStateFilter | ''
}

export interface IncidentFold {
  kind: 'fold'
  key: string
  ruleName: string
  severity: Severity
  incidents: Incident[]
  /** Names of the firing hosts, sorted. */
  hosts: string[]
  openedMs: number
  /** Alert with the value that is farthest from its threshold. */
  worst: Alert | undefined
}

export interface IncidentLine {
  kind: 'incident'
  incident: Incident
  /** Whether the line belongs to an open fold. */
  nested: boolean
}

export interface SeverityGroup {
  severity: Severity
  count: number
  rows: (IncidentFold | IncidentLine)[]
}

const SEVERITIES: Severity[] = ['critical', 'warning', 'info']

/** Alert that stands for the incident in a list: the most severe that fires. */
export const leadAlert = (incident: Incident): Alert | undefined => incident.alerts[0]

export const isSilenced = (incident: Incident) => leadAlert(incident)?.silenced ?? false

export const firingAlerts = (incident: Incident) => incident.alerts.filter((alert) => alert.resolved_ms === null)

function matchesState(incident: Incident, state: IncidentFilter['state']): boolean {
  switch (state) {
    case '':
      return true
    case 'open':
      return incident.ack === null && !isSilenced(incident)
    case 'acknowledged':
      return incident.ack !== null
    case 'silenced':
      return isSilenced(incident)
    case 'recovering':
      return incident.firing_count === 0
  }
}

/** Text of an incident that the filter searches. */
function searchText(incident: Incident): string {
  const alerts = incident.alerts.flatMap((alert) => [alert.rule_name, alert.host_name, alert.instance, alert.metric])
  return [incident.title, ...alerts].join('\n').toLowerCase()
}

export function filterIncidents(incidents: readonly Incident[], filter: IncidentFilter): Incident[] {
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean)
  return incidents.filter(
    (incident) =>
      (!filter.severity || incident.severity === filter.severity) &&
      matchesState(incident, filter.state) &&
      words.every((word) => searchText(incident).includes(word)),
  )
}

/** Distance of an alert's newest value from its threshold, relative to the threshold. */
function excess(alert: Alert): number {
  const { value, threshold } = alert
  if (value === null || threshold === null) return 0
  return Math.abs(value - threshold) / Math.max(Math.abs(threshold), 1e-9)
}

function foldOf(key: string, incidents: Incident[]): IncidentFold {
  const firing = incidents.flatMap(firingAlerts)
  const lead = leadAlert(incidents[0]!)!
  return {
    kind: 'fold',
    key,
    ruleName: lead.rule_name,
    severity: incidents[0]!.severity,
    incidents,
    hosts: [...new Set(firing.map((alert) => alert.host_name))].sort((a, b) => a.localeCompare(b)),
    openedMs: Math.min(...incidents.map((incident) => incident.opened_ms)),
    worst: [...firing].sort((a, b) => excess(b) - excess(a))[0],
  }
}

/** Groups in order of severity. Folds that `isOpen` names are followed by their incidents. */
export function groupIncidents(incidents: readonly Incident[], isOpen: (key: string) => boolean): SeverityGroup[] {
  return SEVERITIES.flatMap((severity): SeverityGroup[] => {
    const ofSeverity = incidents.filter((incident) => incident.severity === severity)
    if (ofSeverity.length === 0) return []
    const byRule = new Map<string, Incident[]>()
    for (const incident of ofSeverity) {
      const rule = leadAlert(incident)?.rule ?? incident.id
      byRule.set(rule, [...(byRule.get(rule) ?? []), incident])
    }
    const rows = [...byRule].flatMap(([rule, ofRule]): (IncidentFold | IncidentLine)[] => {
      const line = (nested: boolean) => (incident: Incident) => ({ kind: 'incident' as const, incident, nested })
      const fold = foldOf(`${severity} ${rule}`, ofRule)
      if (fold.hosts.length < MIN_FOLDED_HOSTS) return ofRule.map(line(false))
      return isOpen(fold.key) ? [fold, ...ofRule.map(line(true))] : [fold]
    })
    return [{ severity, count: ofSeverity.length, rows }]
  })
}

/** Incident whose explanation is shown first: critical, not acknowledged, with something to explain, newest. */
export function firstToExplain(incidents: readonly Incident[]): string {
  const critical = incidents.filter((incident) => incident.severity === 'critical' && incident.firing_count > 0)
  const rank = (incident: Incident) => Number(incident.ack !== null) + Number(!leadAlert(incident)?.metric)
  const [first] = critical.sort((a, b) => rank(a) - rank(b) || b.opened_ms - a.opened_ms)
  return first?.id ?? ''
}

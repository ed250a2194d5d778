// Open incidents as shown by the shell.
import type { IncidentCounts, Severity } from '../../api/types'

export const SEVERITIES: readonly Severity[] = ['critical', 'warning', 'info']

/** Severities with open incidents, most severe first. */
export const countsOf = (counts: IncidentCounts | null) =>
  SEVERITIES.map((severity) => ({ severity, count: counts?.[severity] ?? 0 })).filter(({ count }) => count > 0)

export const totalOf = (counts: IncidentCounts | null) => countsOf(counts).reduce((sum, { count }) => sum + count, 0)

// Alerts in charts: spans of the time in which they fired, and their thresholds.
import './texts'
import type { Alert } from '../../api/types'
import { label } from '../../charts/axes'
import type { Span } from '../../charts/marks'
import { t } from '../../i18n'
import type { Panel } from './panels'

type Limit = NonNullable<Panel['limits']>[number]
type Marks = Map<string, { spans: Span[]; limits: Limit[] }>

/** Spans and thresholds of alerts by metric; an alert that fires lasts until `endMs`. */
export function alertMarks(alerts: readonly Alert[], endMs: number): Marks {
  const byMetric: Marks = new Map()
  for (const alert of alerts) {
    const found = byMetric.get(alert.metric) ?? { spans: [], limits: [] }
    byMetric.set(alert.metric, found)
    found.spans.push({ from: alert.fired_ms / 1000, to: (alert.resolved_ms ?? endMs) / 1000, severity: alert.severity })
    const { threshold, severity } = alert
    if (threshold == null || found.limits.some(({ value }) => value === threshold)) continue
    found.limits.push({ value: threshold, color: severity, label: '' })
  }
  return byMetric
}

/** Panel with the alerts of its metrics. */
export function withMarks(panel: Panel, marks: Marks) {
  const metrics = new Set([panel.peak, ...panel.series.map(({ metric }) => metric)])
  const found = [...marks].filter(([metric]) => metrics.has(metric)).map(([, mark]) => mark)
  const limits = found
    .flatMap((mark) => mark.limits)
    .map((limit) => ({
      ...limit,
      label: t('host.panels.limit', {
        severity: t(`common.severity.${limit.color as 'warning'}`).toLowerCase(),
        value: label(limit.value, panel.unit),
      }),
    }))
  return { ...panel, spans: found.flatMap((mark) => mark.spans), limits: [...(panel.limits ?? []), ...limits] }
}

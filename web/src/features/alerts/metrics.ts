// Metric catalog of the hub, extended by the metrics that only rules use.
import './texts'
import { computed } from 'vue'
import { useApiQuery } from '../../api/query'
import type { MetricDef } from '../../api/types'
import { t } from '../../i18n'

export const LOAD_PER_CORE = 'load.per_core'
export const CLOCK_SKEW = 'clock.skew'

/** Metrics that the hub derives during evaluation. Their history is not stored. */
const DERIVED_METRICS: MetricDef[] = [
  derivedMetric(LOAD_PER_CORE, 'count', t('alerts.rule.loadPerCore'), 2),
  derivedMetric(CLOCK_SKEW, 'milliseconds', t('alerts.rule.clockSkew'), 0),
]

function derivedMetric(name: string, unit: string, help: string, decimals: number): MetricDef {
  return { name, unit, help, decimals, dimension: '', kind: 'gauge', rollup: 'mean', min: 0, max: null }
}

/** Recorded metric that a chart draws for a metric of a rule. */
export const recordedMetric = (name: string) => (name === LOAD_PER_CORE ? 'load.5m' : name)

export function useMetricCatalog() {
  const { data, problem } = useApiQuery('/api/v1/catalog')
  const metrics = computed(() => [...(data.value?.metrics ?? []), ...DERIVED_METRICS].sort((a, b) => a.name.localeCompare(b.name)))
  const findMetric = (name: string) => metrics.value.find((metric) => metric.name === name)
  const isLoaded = computed(() => data.value !== undefined)
  return { metrics, findMetric, isLoaded, problem }
}

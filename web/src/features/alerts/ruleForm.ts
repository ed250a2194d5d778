// Form of a rule: one flat object with the fields of all condition kinds, so that a change of kind keeps the input.
import './texts'
import type { Condition, Rule } from '../../api/types'
import { t } from '../../i18n'

type Kind = Condition['kind']
type ConditionOf<K extends Kind> = Extract<Condition, { kind: K }>
type Aggregate = NonNullable<ConditionOf<'threshold'>['aggregate']>
type Comparison = NonNullable<ConditionOf<'threshold'>['compare']>

/** Value of a number field; empty while nothing is entered. */
type NumberInput = number | ''

export interface RuleForm {
  name: string
  runbook: string
  enabled: boolean
  severity: NonNullable<Rule['severity']>
  hosts: NonNullable<Rule['hosts']>
  for: string
  /** `host`, `rule`, or the key of a tag. */
  group_by: string
  kind: Kind
  metric: string
  instance: string
  aggregate: Aggregate
  window: string
  compare: Comparison
  threshold: NumberInput
  clear_threshold: NumberInput
  offset: string
  lookback: string
  horizon: string
  target: NumberInput
  grace: string
  hub_metric: ConditionOf<'hub'>['hub_metric']
}

export const newRuleForm = (): RuleForm => ({
  name: '',
  runbook: '',
  enabled: true,
  severity: 'warning',
  hosts: {},
  for: '10s',
  group_by: 'host',
  kind: 'threshold',
  metric: 'cpu.usage',
  instance: '',
  aggregate: 'last',
  window: '5m',
  compare: 'above',
  threshold: 90,
  clear_threshold: '',
  offset: '1d',
  lookback: '6h',
  horizon: '24h',
  target: 100,
  grace: '1m',
  hub_metric: 'ingest_blocked',
})

/** Fields that have the same name and type in conditions and in the form. */
const COPIED_FIELDS = [
  'kind',
  'metric',
  'aggregate',
  'compare',
  'threshold',
  'offset',
  'lookback',
  'horizon',
  'target',
  'grace',
  'hub_metric',
]

/** Copies a rule into the form. Fields that its condition does not have keep their values. */
export function fillRuleForm(form: RuleForm, rule: Rule) {
  const groupBy = rule.group_by ?? 'host'
  Object.assign(form, {
    name: rule.name,
    runbook: rule.runbook ?? '',
    enabled: rule.enabled ?? true,
    severity: rule.severity ?? 'warning',
    hosts: rule.hosts ?? {},
    for: rule.for ?? '0s',
    group_by: typeof groupBy === 'string' ? groupBy : groupBy.tag,
  })
  const condition = rule.condition as Record<string, unknown>
  for (const field of COPIED_FIELDS) if (condition[field] != null) Object.assign(form, { [field]: condition[field] })
  form.instance = (condition.instance as string | null) ?? ''
  form.clear_threshold = (condition.clear_threshold as number | null) ?? ''
  // The latest value has the window zero, which is no useful preset for an average.
  if (condition.window && condition.window !== '0s') form.window = condition.window as string
}

/** Fills the form of a new rule from the address of a link: metric, instance and host. */
export function prefillRuleForm(form: RuleForm, query: Record<string, unknown>) {
  const text = (key: string) => (typeof query[key] === 'string' ? query[key] : '')
  if (!text('metric')) return
  form.metric = text('metric')
  form.instance = text('instance')
  if (text('host')) form.hosts = { hosts: [text('host')] }
}

/** Metric of a new rule by its kind. A share of CPU time has no trend that reaches its limit; a filesystem does. */
const defaultMetric = (kind: Kind) => (kind === 'forecast' ? 'filesystem.used_percent' : 'cpu.usage')

/** Replaces the metric of a new rule after a change of its kind, unless it was chosen. */
export function suggestMetric(form: RuleForm, kind: Kind, before: Kind) {
  if (form.metric === defaultMetric(before)) form.metric = defaultMetric(kind)
}

/** Number of a field; NaN, which JSON encodes as null, is rejected by the hub as missing. */
const toNumber = (value: NumberInput) => (value === '' ? Number.NaN : Number(value))

function toCondition(form: RuleForm): Condition {
  const { kind, metric, compare, grace } = form
  const instance = form.instance.trim() || null
  const limits = {
    compare,
    threshold: toNumber(form.threshold),
    clear_threshold: form.clear_threshold === '' ? null : Number(form.clear_threshold),
  }
  switch (kind) {
    case 'threshold':
      return { kind, metric, instance, aggregate: form.aggregate, window: form.aggregate === 'last' ? '0s' : form.window, ...limits }
    case 'change':
      return { kind, metric, instance, window: form.window, offset: form.offset, ...limits }
    case 'forecast':
      return { kind, metric, instance, lookback: form.lookback, horizon: form.horizon, target: toNumber(form.target), compare }
    case 'absent':
      return { kind, metric, instance, grace }
    case 'no_data':
      return { kind, grace }
    case 'hub':
      return { kind, hub_metric: form.hub_metric, ...limits }
  }
}

export function toRule(form: RuleForm): Rule {
  return {
    name: form.name || t('alerts.rule.unnamed'),
    runbook: form.runbook,
    enabled: form.enabled,
    severity: form.severity,
    hosts: form.kind === 'hub' ? {} : form.hosts,
    for: form.for || '0s',
    group_by: form.group_by === 'host' || form.group_by === 'rule' ? form.group_by : { tag: form.group_by },
    condition: toCondition(form),
  }
}

/** Applies a threshold that a backtest suggests; the distance of the clear threshold is kept. */
export function applyThreshold(form: RuleForm, threshold: number) {
  const difference = threshold - Number(form.threshold)
  if (form.clear_threshold !== '') form.clear_threshold = Math.round((Number(form.clear_threshold) + difference) * 100) / 100
  form.threshold = threshold
}

/** Returns whether a host selector selects a host: any of the hosts or tags, and none of the excluded tags. */
export function matchesHost(selector: RuleForm['hosts'], host: { id: string; tags: readonly string[] }): boolean {
  const { hosts = [], tags = [], exclude_tags: excluded = [] } = selector
  const isSelected = (!hosts.length && !tags.length) || hosts.includes(host.id) || host.tags.some((tag) => tags.includes(tag))
  return isSelected && !host.tags.some((tag) => excluded.includes(tag))
}

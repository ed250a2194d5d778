import { describe, expect, it } from 'vitest'
import type { Condition, Rule } from '../../api/types'
import { applyThreshold, fillRuleForm, newRuleForm, prefillRuleForm, type RuleForm, suggestMetric, toRule, matchesHost } from './ruleForm'

const conditions: Condition[] = [
  {
    kind: 'threshold',
    metric: 'cpu.usage',
    instance: null,
    aggregate: 'mean',
    window: '2m',
    compare: 'below',
    threshold: 5,
    clear_threshold: 8,
  },
  {
    kind: 'change',
    metric: 'network.rx_bytes',
    instance: 'eth*',
    window: '10m',
    offset: '7d',
    compare: 'above',
    threshold: 50,
    clear_threshold: null,
  },
  { kind: 'forecast', metric: 'disk.used_percent', instance: '/', lookback: '3h', horizon: '12h', target: 95, compare: 'above' },
  { kind: 'absent', metric: 'temperature.celsius', instance: null, grace: '2m' },
  { kind: 'no_data', grace: '30s' },
  { kind: 'hub', hub_metric: 'disk_budget_used', compare: 'above', threshold: 80, clear_threshold: null },
]

const ruleWith = (condition: Condition): Rule => ({
  name: 'A rule',
  runbook: 'Check the host.',
  enabled: false,
  severity: 'critical',
  hosts: condition.kind === 'hub' ? {} : { tags: ['environment=production'], exclude_tags: ['test'] },
  for: '3m',
  group_by: { tag: 'environment' },
  condition,
})

describe('rule form', () => {
  it.each(conditions)('$kind rule round-trips through the form', (condition) => {
    const form = newRuleForm()
    fillRuleForm(form, ruleWith(condition))
    expect(toRule(form)).toEqual(ruleWith(condition))
  })

  it('latest value has no window and keeps the preset for other aggregations', () => {
    const form = newRuleForm()
    fillRuleForm(form, ruleWith({ kind: 'threshold', metric: 'cpu.usage', aggregate: 'last', window: '0s', threshold: 90 }))
    expect(toRule(form).condition).toMatchObject({ aggregate: 'last', window: '0s' })
    form.aggregate = 'max'
    expect(toRule(form).condition).toMatchObject({ aggregate: 'max', window: '5m' })
  })

  it('missing fields have the defaults of the hub', () => {
    const form = newRuleForm()
    fillRuleForm(form, { name: 'A rule', condition: { kind: 'threshold', metric: 'cpu.usage', threshold: 90 } })
    expect(form).toMatchObject({ enabled: true, severity: 'warning', for: '0s', group_by: 'host', instance: '', clear_threshold: '' })
  })

  it('empty number fields are sent as null', () => {
    const form = newRuleForm()
    form.threshold = ''
    expect(JSON.parse(JSON.stringify(toRule(form).condition))).toMatchObject({ threshold: null, clear_threshold: null })
  })

  it('suggested threshold moves the clear threshold along', () => {
    const form: RuleForm = { ...newRuleForm(), threshold: 90, clear_threshold: 85.5 }
    applyThreshold(form, 92.25)
    expect(form).toMatchObject({ threshold: 92.25, clear_threshold: 87.75 })
    form.clear_threshold = ''
    applyThreshold(form, 95)
    expect(form).toMatchObject({ threshold: 95, clear_threshold: '' })
  })
})

describe('matchesHost', () => {
  const host = { id: 'a', tags: ['role=web', 'env=prod'] }

  it('selects by host or tag, without excluded tags', () => {
    expect(matchesHost({}, host)).toBe(true)
    expect(matchesHost({ hosts: ['b'] }, host)).toBe(false)
    expect(matchesHost({ hosts: ['b'], tags: ['role=web'] }, host)).toBe(true)
    expect(matchesHost({ exclude_tags: ['env=prod'] }, host)).toBe(false)
  })
})

it('a link fills in metric, instance and host', () => {
  const form = newRuleForm()
  prefillRuleForm(form, { metric: 'disk.utilization', instance: 'sda', host: 'h1' })
  expect(toRule(form)).toMatchObject({ hosts: { hosts: ['h1'] }, condition: { metric: 'disk.utilization', instance: 'sda' } })
  const other = newRuleForm()
  prefillRuleForm(other, { host: ['h1'] })
  expect(other).toEqual(newRuleForm())
})

it('a forecast suggests the usage of filesystems unless a metric was chosen', () => {
  const form = newRuleForm()
  suggestMetric(form, 'forecast', 'threshold')
  expect(form.metric).toBe('filesystem.used_percent')
  suggestMetric(form, 'change', 'forecast')
  expect(form.metric).toBe('cpu.usage')
  form.metric = 'memory.used'
  suggestMetric(form, 'forecast', 'change')
  expect(form.metric).toBe('memory.used')
})

// Backtest of a rule over stored history. It runs again a moment after each change of the rule.
import { computed, onBeforeUnmount, ref, shallowRef, watch, type Ref } from 'vue'
import { api, unwrap } from '../../api/client'
import { errorMessage } from '../../api/errors'
import type { Backtest, Rule } from '../../api/types'
import { type HistoryColumns, loadHistory } from '../../live/history'
import { recordedMetric } from './metrics'

export const RANGES = ['-24h', '-7d', '-30d'] as const
export type BacktestRange = (typeof RANGES)[number]

/** Time after the last key in the form. */
const START_DELAY_MS = 300
const POINTS = 700
/** Charts of hosts with fewer points than this begin at their first point, unless the rest is short anyway. */
const MIN_POINTS = 60
const MIN_UNRECORDED_S = 600

export function useBacktest(rule: Ref<Rule>, ready: Ref<boolean>, range: Ref<BacktestRange>) {
  const backtest = shallowRef<Backtest | null>(null)
  const problem = ref('')
  const running = ref(false)
  const selectedHost = ref('')
  const columns = shallowRef<HistoryColumns | null>(null)
  const version = ref(0)
  const view = shallowRef({ window: 600, fixed: { from: 0, to: 1 } })
  let latestRequest = 0
  let timer: ReturnType<typeof setTimeout> | undefined

  const shownHost = computed(
    () => backtest.value?.hosts.find(({ host }) => host === selectedHost.value) ?? backtest.value?.hosts[0] ?? null,
  )
  const metric = computed(() => {
    const { condition } = rule.value
    if (condition.kind === 'no_data') return 'system.uptime'
    return condition.kind === 'hub' ? '' : recordedMetric(condition.metric)
  })

  async function run() {
    const request = ++latestRequest
    running.value = true
    try {
      const answer = await unwrap(api.POST('/api/v1/rules/backtest', { body: { rule: rule.value, from: range.value } }))
      if (request !== latestRequest) return
      backtest.value = answer
      problem.value = ''
      await draw(request)
    } catch (error) {
      if (request !== latestRequest) return
      backtest.value = null
      columns.value = null
      problem.value = errorMessage(error)
    } finally {
      if (request === latestRequest) running.value = false
    }
  }

  async function draw(request: number) {
    const result = backtest.value
    const host = shownHost.value?.host
    if (!result || !host || !metric.value) return void (columns.value = null)
    let from = result.from_ms / 1000
    const to = result.to_ms / 1000
    const load = () => loadHistory(host, [metric.value], from, to, POINTS, new AbortController().signal).catch(() => null)
    let history = await load()
    // A host that was added recently: its history fills the chart.
    if (history && history.times.length > 0 && history.times.length < MIN_POINTS && history.times[0]! > from + MIN_UNRECORDED_S) {
      from = history.times[0]!
      history = await load()
    }
    if (request !== latestRequest) return
    columns.value = history
    view.value = { window: to - from, fixed: { from, to } }
    version.value++
  }

  watch(
    [() => JSON.stringify([rule.value.condition, rule.value.for, rule.value.hosts]), range, ready],
    () => {
      clearTimeout(timer)
      if (ready.value) timer = setTimeout(run, START_DELAY_MS)
    },
    { immediate: true },
  )
  watch(selectedHost, () => void draw(latestRequest))
  onBeforeUnmount(() => clearTimeout(timer))

  return { backtest, problem, running, selectedHost, shownHost, metric, columns, version, view, run }
}

// Data that the charts are compared with.
import './texts'
import { computed, onScopeDispose, shallowRef, watch, type Ref } from 'vue'
import { errorMessage } from '../../api/errors'
import type { Ghost } from '../../charts/marks'
import { t } from '../../i18n'
import { day } from '../../lib/format'
import { loadHistory } from '../../live/history'
import { HISTORY_METRICS } from './panels'
import type { Compared } from './useCompared'
import type { TimeRange } from './useTimeRange'

const POINTS = 400
/** Milliseconds between two requests while the range moves. */
const REFRESH_INTERVAL_MS = 15_000

export function useComparison(timeRange: TimeRange, compared: Ref<Compared | null>, isShown: Ref<boolean>) {
  const { view, bounds } = timeRange
  const ghost = shallowRef<Ghost>()
  const problem = shallowRef('')
  let request = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined

  const shown = computed(() => (isShown.value ? compared.value : null))

  async function load() {
    clearTimeout(timer)
    request.abort()
    request = new AbortController()
    const { signal } = request
    const target = shown.value
    if (!target) {
      ghost.value = undefined
      problem.value = ''
      return
    }
    const [from, to] = bounds()
    try {
      const columns = await loadHistory(target.host, HISTORY_METRICS, from - target.shift, to - target.shift, POINTS, signal)
      ghost.value = { columns, shift: target.shift, label: target.label || day((to - target.shift) * 1000) }
      problem.value = columns.times.length ? '' : t('host.compare.none')
    } catch (error) {
      if (signal.aborted) return
      ghost.value = undefined
      problem.value = errorMessage(error)
    }
    if (!view.value.fixed) timer = setTimeout(() => void load(), REFRESH_INTERVAL_MS)
  }
  const window = computed(() => JSON.stringify([view.value.fixed, view.value.window]))
  watch([shown, window], () => void load(), { immediate: true })
  onScopeDispose(() => {
    clearTimeout(timer)
    request.abort()
  })
  return { ghost, problem, compared }
}

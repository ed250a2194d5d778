// What the host page shows when it is not the live stream: a range of history, loaded as the
// range changes and renewed while it moves; and the processes of an instant or of the range.
import { onScopeDispose, ref, shallowRef, watch, type Ref } from 'vue'
import type { ProcessRow } from '../../api/types'
import type { Latest } from '../../live/columns'
import { loadSnapshotAt, loadHistory, type HistoryColumns, loadTopProcesses } from '../../live/history'
import { HISTORY_METRICS } from './panels'
import type { Range } from './range'

/** Renewed this often at most, seconds, and at least each minute. */
const LEAST_S = 5
const MOST_S = 60
/** About one point for two pixels of a chart. */
const POINTS = 400

export function useHistory(id: string, range: Ref<Range>) {
  const columns = shallowRef<HistoryColumns | null>(null)
  const shown = shallowRef<{ from: number; to: number } | null>(null)
  const version = shallowRef(0)
  const loading = ref(false)
  const problem = ref('')
  let ask = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined

  async function load(renew = false) {
    clearTimeout(timer)
    ask.abort()
    ask = new AbortController()
    const { span, fixed } = range.value
    if (span.live && !fixed) {
      columns.value = null
      shown.value = null
      loading.value = false
      problem.value = ''
      return
    }
    const now = Date.now() / 1000
    const { from, to } = fixed ?? { from: now - span.seconds, to: now }
    loading.value = !renew
    try {
      const next = await loadHistory(id, HISTORY_METRICS, from, to, POINTS, ask.signal)
      columns.value = next
      shown.value = { from, to }
      problem.value = ''
      version.value++
    } catch (error) {
      if (ask.signal.aborted) return
      problem.value = (error as Error).message
    }
    loading.value = false
    if (!fixed) timer = setTimeout(() => void load(true), Math.min(MOST_S, Math.max(LEAST_S, span.seconds / POINTS)) * 1000)
  }

  watch(
    () => [range.value.span.key, range.value.fixed?.from, range.value.fixed?.to],
    () => void load(),
    { immediate: true },
  )
  onScopeDispose(() => {
    clearTimeout(timer)
    ask.abort()
  })
  return { columns, shown, version, loading, problem, load }
}

/** The mouse moves on before an answer is there: only the last question counts. */
const SETTLE_MS = 90
/** Every row is read for a sum. */
const MOST_SUM_S = 7 * 86_400 + 60

export function useSnapshotAt(id: string) {
  const at = ref<number | null>(null)
  const rows = shallowRef<ProcessRow[]>([])
  /** All figures of that instant, or of the end of the range that is summed up. */
  const figures = shallowRef<{ at: number; latest: Latest } | null>(null)
  const problem = ref('')
  const busy = ref(false)
  let ask = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined

  function stop() {
    clearTimeout(timer)
    ask.abort()
    ask = new AbortController()
  }

  type Answer = { at: number | null; rows: ProcessRow[] }
  async function answer(question: (signal: AbortSignal) => Promise<Answer>) {
    const { signal } = ask
    busy.value = true
    try {
      const found = await question(signal)
      if (signal.aborted) return
      at.value = found.at
      rows.value = found.rows
      problem.value = ''
    } catch (error) {
      if (signal.aborted) return
      rows.value = []
      problem.value = (error as Error).message
    }
    busy.value = false
  }

  async function look(instant: number, signal: AbortSignal) {
    const found = await loadSnapshotAt(id, instant, signal)
    figures.value = { at: found.at, latest: found.values }
    return found
  }

  onScopeDispose(stop)
  return {
    at,
    rows,
    figures,
    problem,
    busy,
    /** The processes of one second. */
    show(instant: number) {
      stop()
      timer = setTimeout(() => void answer((signal) => look(instant, signal)), SETTLE_MS)
    },
    /** Who used the host over a range. */
    sum(from: number, to: number) {
      stop()
      at.value = null
      const { signal } = ask
      // Nothing may be kept of that time: then there is no table, and the charts say why.
      look(to, signal).catch(() => {
        if (!signal.aborted) figures.value = null
      })
      if (to - from > MOST_SUM_S) {
        rows.value = []
        problem.value = 'Hover over a chart to see the processes of a moment; they are summed up over a week at most.'
        return
      }
      void answer(async (signal) => ({ at: null, rows: await loadTopProcesses(id, from, to, signal) }))
    },
  }
}

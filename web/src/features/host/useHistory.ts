// History on the host page: columns of a time range, and the snapshot and top processes of a past time.
import './texts'
import { onScopeDispose, ref, shallowRef, watch, type Ref } from 'vue'
import { errorMessage } from '../../api/errors'
import type { ProcessRow } from '../../api/types'
import { t } from '../../i18n'
import type { LatestSnapshot } from '../../live/columns'
import { loadHistory, type HistoryColumns, loadSnapshotAt, loadTopProcesses } from '../../live/history'
import { HISTORY_METRICS, SCRIPT_METRICS } from './panels'
import type { Range } from './range'
import { hubNow } from '../../lib/hubClock'
import { useReconnect } from '../../useReconnect'

/** Seconds between two requests of a moving range; the distance of two points in between. */
const MIN_REFRESH_S = 5
const MAX_REFRESH_S = 60
/** Points per series: about one for two pixels of a chart. */
const MAX_POINTS = 400

/** Columns of the visible range, reloaded when the range changes and periodically while it moves. */
export function useHistory(id: string, range: Ref<Range>, isScript: Ref<boolean>, isShown: Ref<boolean>) {
  /** Null if the range is shown from the live stream. */
  const columns = shallowRef<HistoryColumns | null>(null)
  /** Bounds of `columns` in Unix seconds. */
  const shown = shallowRef<{ from: number; to: number } | null>(null)
  const version = shallowRef(0)
  const loading = ref(false)
  const problem = ref('')
  let request = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  /** A hidden page loads nothing; a request that became due follows when it is shown. */
  let isDue = false

  async function load(isRefresh = false) {
    clearTimeout(timer)
    isDue = isRefresh && document.hidden
    if (isDue) return
    request.abort()
    request = new AbortController()
    if (!isShown.value) return
    const { signal } = request
    const { preset, fixed } = range.value
    if (preset.live && !fixed) {
      columns.value = null
      shown.value = null
      loading.value = false
      problem.value = ''
      return
    }
    const now = hubNow() / 1000
    const { from, to } = fixed ?? { from: now - preset.seconds, to: now }
    loading.value = !isRefresh
    try {
      columns.value = await loadHistory(id, isScript.value ? SCRIPT_METRICS : HISTORY_METRICS, from, to, MAX_POINTS, signal)
      shown.value = { from, to }
      problem.value = ''
      version.value++
    } catch (error) {
      if (signal.aborted) return
      problem.value = errorMessage(error)
    }
    loading.value = false
    const refreshSeconds = Math.min(MAX_REFRESH_S, Math.max(MIN_REFRESH_S, preset.seconds / MAX_POINTS))
    if (!fixed) timer = setTimeout(() => void load(true), refreshSeconds * 1000)
  }

  watch(
    () => [range.value.preset.key, range.value.fixed?.from, range.value.fixed?.to, isScript.value, isShown.value],
    () => void load(),
    { immediate: true },
  )
  const onVisibility = () => isDue && void load(true)
  document.addEventListener('visibilitychange', onVisibility)
  useReconnect(() => load(true))
  onScopeDispose(() => {
    clearTimeout(timer)
    request.abort()
    document.removeEventListener('visibilitychange', onVisibility)
  })
  return { columns, shown, version, loading, problem, reload: () => load() }
}

/** Delay of a request after the last cursor movement. */
const SETTLE_DELAY_MS = 90
/** Maximum range of top processes: the hub reads every raw row of the range. */
export const MAX_PROCESSES_RANGE_S = 7 * 86_400 + 60

/** Processes and values of a past time, or top processes over a range. A later request replaces an earlier one. */
export function useSnapshotAt(id: string) {
  /** Time of the loaded snapshot in Unix seconds; null for a range. */
  const at = ref<number | null>(null)
  const rows = shallowRef<ProcessRow[]>([])
  /** All values of the snapshot, or of the snapshot at the end of the range. */
  const snapshot = shallowRef<{ at: number; values: LatestSnapshot } | null>(null)
  const problem = ref('')
  const loading = ref(false)
  let request = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined

  function cancel() {
    clearTimeout(timer)
    request.abort()
    request = new AbortController()
  }

  type LoadedRows = { at: number | null; rows: ProcessRow[] }
  async function run(load: (signal: AbortSignal) => Promise<LoadedRows>) {
    const { signal } = request
    loading.value = true
    try {
      const loaded = await load(signal)
      if (signal.aborted) return
      at.value = loaded.at
      rows.value = loaded.rows
      problem.value = ''
    } catch (error) {
      if (signal.aborted) return
      rows.value = []
      problem.value = errorMessage(error)
    }
    loading.value = false
  }

  async function loadSnapshot(time: number, signal: AbortSignal) {
    const loaded = await loadSnapshotAt(id, time, signal)
    snapshot.value = { at: loaded.at, values: loaded.values }
    return loaded
  }

  onScopeDispose(cancel)
  return {
    at,
    rows,
    snapshot,
    problem,
    loading,
    /** Loads the snapshot at a time in Unix seconds. */
    loadAt(time: number) {
      cancel()
      timer = setTimeout(() => void run((signal) => loadSnapshot(time, signal)), SETTLE_DELAY_MS)
    },
    /** Loads the top processes of a range in Unix seconds. */
    loadRange(from: number, to: number) {
      cancel()
      at.value = null
      const { signal } = request
      // Without a snapshot there is no device table; the charts show the reason.
      loadSnapshot(to, signal).catch(() => {
        if (!signal.aborted) snapshot.value = null
      })
      if (to - from > MAX_PROCESSES_RANGE_S) {
        rows.value = []
        problem.value = t('host.processes.tooLong')
        return
      }
      void run(async (signal) => ({ at: null, rows: await loadTopProcesses(id, from, to, signal) }))
    },
  }
}

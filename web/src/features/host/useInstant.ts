// Values and processes at the shown instant, and how they compare with those of five minutes before, or of what the page is
// compared with.
import { computed, onScopeDispose, type Ref, shallowRef, watch } from 'vue'
import type { ProcessRow } from '../../api/types'
import type { LatestSnapshot } from '../../live/columns'
import { loadSnapshotAt, type SnapshotAt } from '../../live/history'
import type { LiveHost } from '../../live/useHost'
import { compareProcesses } from './processes'
import { useSnapshotAt } from './useHistory'
import type { Compared } from './useCompared'
import type { TimeRange } from './useTimeRange'

/** Distance in seconds to the values that those of the instant are compared with. */
const BEFORE_S = 300
/** Values before a live page are loaded again after this many seconds. */
const BEFORE_STEP_S = 30
const SETTLE_DELAY_MS = 150

/** Compared snapshot of a time in Unix seconds; null while there is none. */
function useBefore(compared: Ref<Compared>, time: Ref<number | null>) {
  const before = shallowRef<SnapshotAt | null>(null)
  let request = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined

  async function load(host: string, at: number) {
    request.abort()
    request = new AbortController()
    const { signal } = request
    // Without a snapshot, nothing is compared; the table itself shows errors.
    const loaded = await loadSnapshotAt(host, at, signal).catch(() => null)
    if (!signal.aborted) before.value = loaded
  }
  const target = computed(() =>
    time.value === null ? null : Math.floor((time.value - compared.value.shift) / BEFORE_STEP_S) * BEFORE_STEP_S,
  )
  watch(
    [target, () => compared.value.host] as const,
    ([at, host]) => {
      clearTimeout(timer)
      if (at === null) {
        request.abort()
        before.value = null
      } else timer = setTimeout(() => void load(host, at), SETTLE_DELAY_MS)
    },
    { immediate: true },
  )
  onScopeDispose(() => {
    clearTimeout(timer)
    request.abort()
  })
  return before
}

export function useInstant(
  id: string,
  host: LiveHost,
  timeRange: TimeRange,
  { compared, isShown }: { compared: Ref<Compared | null>; isShown: Ref<boolean> },
) {
  const { hoveredTime, instant, isHistory, history } = timeRange
  const { columns: live, version: ticks } = host
  const snapshot = useSnapshotAt(id)
  // The values follow the cursor, then the instant, then the visible range.
  const selectedTime = computed(() => hoveredTime.value ?? instant.value)
  watch(
    () => [selectedTime.value, isHistory.value, history.version.value, isShown.value] as const,
    ([time]) => {
      const shown = history.shown.value
      if (!isShown.value) return
      if (time !== null) snapshot.loadAt(time)
      else if (shown && isHistory.value) snapshot.loadRange(shown.from, shown.to)
    },
    { immediate: true },
  )
  const showsLive = computed(() => selectedTime.value === null && !isHistory.value)
  /** Whether the processes are those of a range, without an instant. */
  const isRange = computed(() => !showsLive.value && selectedTime.value === null)

  const rows = computed((): readonly ProcessRow[] => (void ticks.value, showsLive.value ? live.processes : snapshot.rows.value))
  const values = computed((): LatestSnapshot | null => (showsLive.value ? live : (snapshot.snapshot.value?.values ?? null)))
  /** Time of the values in Unix seconds. */
  const valuesAt = computed(() => {
    void ticks.value
    return (showsLive.value ? live.times.at(-1) : snapshot.snapshot.value?.at) ?? null
  })
  const other = computed((): Compared => compared.value ?? { host: id, shift: BEFORE_S, label: '' })
  const before = useBefore(
    other,
    computed(() => (isShown.value ? valuesAt.value : null)),
  )
  /** Compared values with their distance in seconds; null if there are none, or they are the same sample. */
  const comparison = computed(() => {
    const [earlier, at] = [before.value, valuesAt.value]
    const { label } = other.value
    if (!earlier || at === null || (!label && earlier.at >= at)) return null
    return { at: earlier.at, seconds: at - earlier.at, values: earlier.values, rows: earlier.rows, label }
  })
  const changes = computed(() => {
    const earlier = comparison.value
    // Processes of another host neither start nor end here.
    return earlier && !earlier.label && !isRange.value && earlier.rows.length
      ? compareProcesses(rows.value, earlier.rows, earlier.at)
      : null
  })

  return { snapshot, selectedTime, showsLive, isRange, rows, values, valuesAt, comparison, changes }
}

export type InstantState = ReturnType<typeof useInstant>

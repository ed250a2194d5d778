// Recorded series of the hubs in the time range of the URL.
import { computed, onScopeDispose, ref, shallowRef, watch } from 'vue'
import { useRoute, useRouter } from 'vue-router'
import { api, unwrap } from '../../api/client'
import { errorMessage } from '../../api/errors'
import type { View } from '../../charts/chartProps'
import { hubNow } from '../../lib/hubClock'
import { HistoryColumns } from '../../live/history'
import { useReconnect } from '../../useReconnect'

export const RANGES = { '15m': 900, '1h': 3_600, '6h': 21_600, '24h': 86_400, '7d': 604_800, '30d': 2_592_000 } as const
export type RangeKey = keyof typeof RANGES
const DEFAULT_RANGE: RangeKey = '1h'
const MAX_POINTS = 400
/** Interval of the recorder; longer ranges change less often. */
const REFRESH_MS = 10_000
const MAX_REFRESH_MS = 60_000
/** Length of the range whose last values the path shows, independent of the charts. */
const RECENT_S = 60

function load(from: number, to: number, signal: AbortSignal) {
  const query = { metric: 'hub.*', from: String(Math.round(from * 1000)), to: String(Math.round(to * 1000)), points: MAX_POINTS }
  return unwrap(api.GET('/api/v1/system/series', { params: { query }, signal }))
}

export function useHubSeries(enabled: () => boolean) {
  const route = useRoute()
  const router = useRouter()
  const range = computed<RangeKey>(() => ((route.query.range as string) in RANGES ? (route.query.range as RangeKey) : DEFAULT_RANGE))
  const fixed = computed(() => {
    const [from, to] = [Number(route.query.from), Number(route.query.to)].map((ms) => ms / 1000)
    return from! > 0 && to! > from! ? { from: from!, to: to! } : null
  })
  const columns = shallowRef<HistoryColumns | null>(null)
  /** Values of the last minute. */
  const recent = shallowRef<HistoryColumns | null>(null)
  const shown = shallowRef<{ from: number; to: number } | null>(null)
  const version = ref(0)
  const problem = ref('')
  const receivedMs = ref(0)
  /** Time between two requests: long ranges change rarely. */
  const intervalMs = ref(REFRESH_MS)
  let request = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  let failures = 0

  async function refresh() {
    clearTimeout(timer)
    request.abort()
    request = new AbortController()
    const { signal } = request
    const now = hubNow() / 1000
    const bounds = fixed.value ?? { from: now - RANGES[range.value], to: now }
    try {
      const [answer, last] = await Promise.all([load(bounds.from, bounds.to, signal), load(now - RECENT_S, now, signal)])
      columns.value = new HistoryColumns(answer)
      recent.value = new HistoryColumns(last)
      shown.value = bounds
      version.value++
      problem.value = ''
      receivedMs.value = Date.now()
      failures = 0
    } catch (error) {
      if (signal.aborted) return
      problem.value = errorMessage(error)
      failures++
    }
    schedule()
  }

  function schedule() {
    if (document.hidden) return
    const seconds = fixed.value ? fixed.value.to - fixed.value.from : RANGES[range.value]
    const pause = Math.min(MAX_REFRESH_MS, Math.max(REFRESH_MS, (seconds / MAX_POINTS) * 1000))
    intervalMs.value = pause
    timer = setTimeout(() => void refresh(), Math.min(MAX_REFRESH_MS, pause * 2 ** Math.min(failures, 3)))
  }

  function onVisibility() {
    if (!document.hidden && enabled()) void refresh()
  }

  watch(
    () => [enabled(), range.value, fixed.value?.from, fixed.value?.to] as const,
    ([isEnabled]) => {
      if (isEnabled) void refresh()
    },
    { immediate: true },
  )
  useReconnect(() => enabled() && refresh())
  document.addEventListener('visibilitychange', onVisibility)
  onScopeDispose(() => {
    clearTimeout(timer)
    request.abort()
    document.removeEventListener('visibilitychange', onVisibility)
  })

  const view = computed<View>(() => ({ window: RANGES[range.value], fixed: shown.value }))
  const setRange = (key: RangeKey) =>
    void router.replace({ query: { ...route.query, range: key === DEFAULT_RANGE ? undefined : key, from: undefined, to: undefined } })
  const zoom = (from: number, to: number) =>
    void router.push({ query: { ...route.query, from: String(Math.round(from * 1000)), to: String(Math.round(to * 1000)) } })
  const resetZoom = () => void router.push({ query: { ...route.query, from: undefined, to: undefined } })

  return { range, fixed, columns, recent, version, view, problem, receivedMs, intervalMs, refresh, setRange, zoom, resetZoom }
}

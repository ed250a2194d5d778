// Data of the time bar: maxima of CPU, memory and I/O in columns, gaps, and the events of its span.
import { computed } from 'vue'
import { useApiQuery } from '../../api/query'
import { hubNow } from '../../lib/hubClock'
import { HistoryColumns } from '../../live/history'
import type { TimeRange } from './useTimeRange'
import { COLUMNS, ribbonOf, withReasons } from './ribbon'

const REFRESH_INTERVAL_MS = 30_000
const REFRESH_S = REFRESH_INTERVAL_MS / 1000
/** Without pressure, the utilization of the busiest disk stands for I/O. */
const METRICS = 'cpu.usage,memory.used_percent,pressure.io.some,disk.utilization'
/** Edges of an older span are multiples of this, so that small moves of the range load nothing. */
const EDGE_S = 900

export function useRibbon(id: string, { range, view }: TimeRange) {
  /** Bounds as parameters: relative while the span ends now, so that a repeated request has equal parameters. */
  const query = computed(() => {
    const { span } = range.value
    const { fixed } = view.value
    const now = hubNow() / 1000
    const middle = fixed ? (range.value.at ?? (fixed.from + fixed.to) / 2) : now
    if (middle >= now - span.seconds) return { from: `-${span.key}` }
    const to = Math.ceil(Math.min(middle + span.seconds / 2, now) / EDGE_S) * EDGE_S
    return { from: String((to - span.seconds) * 1000), to: String(to * 1000) }
  })
  /** Bounds of the events in Unix seconds; a span that ends now moves in steps. */
  const bounds = computed(() => {
    const { from, to } = query.value
    if (to !== undefined) return { from: Number(from) / 1000, to: Number(to) / 1000 }
    const end = Math.ceil(hubNow() / 1000 / REFRESH_S) * REFRESH_S
    return { from: end - range.value.span.seconds, to: end }
  })
  const options = { refetchInterval: REFRESH_INTERVAL_MS }
  const path = { id }
  const seriesQuery = useApiQuery(
    '/api/v1/hosts/{id}/series',
    () => ({ params: { path, query: { metric: METRICS, points: COLUMNS, ...query.value } } }),
    options,
  )
  const eventsQuery = useApiQuery('/api/v1/hosts/{id}/events', () => ({ params: { path, query: query.value } }), options)

  const events = computed(() => eventsQuery.data.value?.events ?? [])
  const data = computed(() => seriesQuery.data.value && ribbonOf(seriesQuery.data.value, new HistoryColumns(seriesQuery.data.value)))
  const ribbon = computed(() => data.value && { ...data.value, gaps: withReasons(data.value.gaps, events.value) })
  return { ribbon, bounds, events, eventsQuery, problem: seriesQuery.problem, retry: seriesQuery.refetch }
}

export type RibbonState = ReturnType<typeof useRibbon>

// State of the host page that its tabs share: host, live data, time range, instant, time bar and comparison.
import './texts'
import { computed, watch } from 'vue'
import { useRoute } from 'vue-router'
import { t } from '../../i18n'
import { duration } from '../../lib/format'
import { hubNow } from '../../lib/hubClock'
import type { Columns } from '../../live/columns'
import { useHost } from '../../live/useHost'
import { METRICS, SECTIONS } from './panels'
import { AGENTLESS_PRESET } from './range'
import { withReasons } from './ribbon'
import { useCompared, useOtherHost } from './useCompared'
import { useComparison } from './useComparison'
import { useHostInfo } from './useHostInfo'
import { useInstant } from './useInstant'
import { usePanels } from './usePanels'
import { usePlayback } from './usePlayback'
import { useRibbon } from './useRibbon'
import { useTimeRange } from './useTimeRange'

/** Interval from which a longer range is shown first. */
const MIN_RARE_INTERVAL_MS = 30_000
const DEFAULT_INTERVAL_MS = 2_000

export function useHostState(id: string) {
  const route = useRoute()
  const liveHost = useHost(id, METRICS)
  const { columns: live, version: ticks, paused } = liveHost
  const info = useHostInfo(id, live)
  const { host } = info
  const isScript = computed(() => host.value !== undefined && !host.value?.facts)
  const tab = computed(() => String(route.path.split('/')[3] ?? ''))
  const isShown = computed(() => tab.value === '' || tab.value === 'processes')
  const timeRange = useTimeRange(id, liveHost, isScript, isShown)
  const { history, isHistory, navigate } = timeRange
  const ribbon = useRibbon(id, timeRange)
  /** Time of the last sample in Unix milliseconds while the host has no data; null while it sends. */
  const silentSinceMs = computed(() => {
    void ticks.value
    const last = host.value?.last_snapshot_ms
    // A new sample arrives before the state of the host is read again.
    return host.value?.status === 'no_data' && last && live.lastMs <= last ? last : null
  })
  const intervalMs = computed(() => host.value?.interval_ms || DEFAULT_INTERVAL_MS)
  const playback = usePlayback(timeRange, liveHost, intervalMs, ribbon.events)
  const compared = useCompared(id, timeRange, info.hosts)
  const instant = useInstant(id, liveHost, timeRange, { compared, isShown })
  const ghost = useComparison(
    timeRange,
    compared,
    computed(() => tab.value === ''),
  )
  const comparison = { ...ghost, otherHost: useOtherHost(compared, info.hosts) }

  watch([history.columns, ribbon.events], ([loaded, events]) => {
    if (loaded) loaded.gaps = withReasons(loaded.gaps, events)
  })
  const columns = computed<Columns>(() => history.columns.value ?? live)
  const version = computed(() => (isHistory.value ? history.version.value : ticks.value))

  const { cores, panels } = usePanels(columns, version)
  const latest = computed(() => (void ticks.value, instant.values.value))
  /** Sections with charts or tables. */
  const sections = computed(() => SECTIONS.filter((section) => panels.value.some((panel) => panel.section === section)))

  // Of a host that sends rarely, the last minutes contain few points: the first answer selects a longer range.
  watch(
    () => host.value?.interval_ms,
    (interval, previous) => {
      const isFirstAnswer = interval !== undefined && previous === undefined
      const isScheduled = host.value?.collection_method === 'ssh' || interval === 0
      const isRare = isScheduled || (interval ?? 0) >= MIN_RARE_INTERVAL_MS
      const isPlain = isShown.value && Object.keys(route.query).length === 0
      if (isFirstAnswer && isRare && isPlain) navigate({ preset: AGENTLESS_PRESET }, true)
    },
    { immediate: true },
  )

  /** Resolution of what is kept of the shown time. */
  const resolution = computed(() => {
    const storage = info.system.value?.storage
    if (!storage || !host.value) return null
    const time = timeRange.instant.value ?? timeRange.view.value.fixed?.to ?? hubNow() / 1000
    const age = hubNow() / 1000 - time
    if (age <= storage.raw_retention_s) {
      return { isRaw: true, text: t('host.recorder.raw', { interval: duration(Math.max(intervalMs.value / 1000, 1)) }) }
    }
    return { isRaw: false, text: t(age <= storage.minute_retention_s ? 'host.recorder.minute' : 'host.recorder.hour') }
  })

  return {
    id,
    ...info,
    live,
    ticks,
    paused,
    columns,
    version,
    cores,
    panels,
    sections,
    latest,
    timeRange,
    playback,
    ribbon,
    instant,
    comparison,
    resolution,
    intervalMs,
    silentSinceMs,
    tab,
    hasRecorder: computed(() => isShown.value || tab.value === 'events'),
  }
}

export type HostState = ReturnType<typeof useHostState>

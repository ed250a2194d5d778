// Visible time range and instant of the host page: the URL is their state, so that a reload shows the same.
import { computed, ref, shallowRef, type Ref } from 'vue'
import { useRoute, useRouter } from 'vue-router'
import { liveRange } from '../../charts/axes'
import type { View } from '../../charts/chartProps'
import { hubNow } from '../../lib/hubClock'
import type { LiveHost } from '../../live/useHost'
import { around, DEFAULT_PRESET, fromQuery, MIN_AROUND_S, presetOf, type Range, type RangePreset, toQuery } from './range'
import { useHistory } from './useHistory'

/** Minimum width of a zoom, in seconds. */
const MIN_ZOOM_S = 2
export type TimeRange = ReturnType<typeof useTimeRange>

/** `isScript` is true for a host that only scripts send; `isShown` while the page shows charts or processes. */
export function useTimeRange(id: string, live: LiveHost, isScript: Ref<boolean>, isShown: Ref<boolean>) {
  const router = useRouter()
  const route = useRoute()
  const range = computed(() => fromQuery(route.query))
  const history = useHistory(id, range, isScript, isShown)
  const isHistory = computed(() => history.columns.value !== null)
  /** Time under the cursor in Unix seconds. */
  const hoveredTime = ref<number | null>(null)
  /** Instant of a running replay, ahead of the URL. */
  const playhead = ref<number | null>(null)
  const instant = computed(() => playhead.value ?? range.value.at)
  /** Range of paused live charts. */
  const frozenRange = shallowRef<View['fixed']>(null)
  /** Number of zooms that `zoomOut` undoes one by one. */
  let zoomDepth = 0

  /** While a range loads, the previous one stays visible. */
  const view = computed<View>(() => {
    const { fixed, preset } = range.value
    return {
      window: preset.seconds,
      fixed: fixed ?? (isHistory.value ? history.shown.value : frozenRange.value),
      mark: instant.value,
    }
  })

  /** Visible range in Unix seconds. */
  function bounds(): [number, number] {
    const { fixed } = view.value
    return fixed ? [fixed.from, fixed.to] : liveRange(live.columns.times, range.value.preset.seconds)
  }

  function navigate(next: Partial<Range>, replace = false) {
    const query = toQuery({ ...range.value, ...next }, route.query)
    void (replace ? router.replace({ query }) : router.push({ query }))
  }

  function pause() {
    const [from, to] = bounds()
    frozenRange.value = { from, to }
    live.setPaused(true)
  }

  function resume(preset: RangePreset) {
    frozenRange.value = null
    playhead.value = null
    zoomDepth = 0
    live.setPaused(false)
    navigate({ preset, fixed: null, at: null })
  }

  function goLive() {
    hoveredTime.value = null
    resume(range.value.preset.live ? range.value.preset : DEFAULT_PRESET)
  }

  function zoom(from: number, to: number) {
    if (to - from < MIN_ZOOM_S) return
    zoomDepth++
    const { at } = range.value
    navigate({ fixed: { from, to }, at: at !== null && at >= from && at <= to ? at : null })
  }

  /** Undoes one zoom; without a zoom, goes live. */
  function zoomOut() {
    if (zoomDepth > 0) {
      zoomDepth--
      router.back()
    } else goLive()
  }

  /** Widens the range around its middle, or the instant, by a factor; below 1 narrows it. */
  function scale(factor: number) {
    const [from, to] = bounds()
    const middle = instant.value ?? (from + to) / 2
    const end = Math.min(middle + (to - middle) * factor, hubNow() / 1000)
    zoom(middle - (middle - from) * factor, Math.max(end, middle + MIN_ZOOM_S))
  }

  /** Moves the range by half its width: -1 to earlier times, 1 to later times. */
  function shiftRange(direction: number) {
    const [from, to] = bounds()
    const offset = (direction * (to - from)) / 2
    navigate({ fixed: { from: from + offset, to: to + offset }, at: null })
  }

  /** Shows an instant in Unix seconds; outside the visible range, the range moves there with its width. */
  function goTo(time: number, replace = false) {
    playhead.value = null
    const now = hubNow() / 1000
    const at = Math.min(time, now)
    const [from, to] = bounds()
    if (at >= from && at <= to) return navigate({ fixed: { from, to }, at }, replace)
    navigate({ fixed: around(at, Math.max(to - from, MIN_AROUND_S)), at }, replace)
  }

  return {
    range,
    history,
    isHistory,
    view,
    bounds,
    hoveredTime,
    playhead,
    instant,
    frozenRange,
    navigate,
    pause,
    goLive,
    selectPreset: (key: RangePreset['key']) => resume(presetOf(key)),
    zoom,
    zoomOut,
    scale,
    shiftRange,
    goTo,
    /** Pins a time in Unix seconds, or unpins the pinned one. */
    togglePin: (time: number) => (range.value.at === null ? goTo(time, true) : navigate({ at: null }, true)),
    unpin: () => navigate({ at: null }, true),
  }
}

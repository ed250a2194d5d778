// Visible time range of the host page: the URL is its state, so that a reload shows the same.
import { computed, ref, shallowRef, type Ref } from 'vue'
import { useRoute, useRouter } from 'vue-router'
import { liveRange } from '../../charts/axes'
import type { View } from '../../charts/TimeChart.vue'
import type { LiveHost } from '../../live/useHost'
import { DEFAULT_PRESET, fromQuery, presetOf, type Range, type RangePreset, toQuery } from './range'
import { useHistory } from './useHistory'

/** Minimum width of a zoom, in seconds. */
const MIN_ZOOM_S = 2

/** `isScript` is true for a host that only scripts send. */
export function useTimeRange(id: string, live: LiveHost, isScript: Ref<boolean>) {
  const router = useRouter()
  const route = useRoute()
  const range = computed(() => fromQuery(route.query))
  const history = useHistory(id, range, isScript)
  const isHistory = computed(() => history.columns.value !== null)
  /** Time under the cursor in Unix seconds. */
  const hoveredTime = ref<number | null>(null)
  /** Range of paused live charts. */
  const frozenRange = shallowRef<View['fixed']>(null)
  /** Number of zooms that `zoomOut` undoes one by one. */
  let zoomDepth = 0

  /** While a range loads, the previous one stays visible. */
  const view = computed<View>(() => {
    const { fixed, preset, at } = range.value
    return {
      window: preset.seconds,
      fixed: fixed ?? (isHistory.value ? history.shown.value : frozenRange.value),
      mark: at ?? hoveredTime.value,
    }
  })

  function navigate(next: Partial<Range>, replace = false) {
    const query = toQuery({ ...range.value, ...next })
    void (replace ? router.replace({ query }) : router.push({ query }))
  }

  function pause() {
    const [from, to] = liveRange(live.columns.times, range.value.preset.seconds)
    frozenRange.value = { from, to }
    live.setPaused(true)
  }

  function resume(preset: RangePreset) {
    frozenRange.value = null
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
    navigate({ fixed: { from, to }, at: null })
  }

  /** Undoes one zoom; without a zoom, goes live. */
  function zoomOut() {
    if (zoomDepth > 0) {
      zoomDepth--
      router.back()
    } else goLive()
  }

  /** Moves the range by half its width: -1 to earlier times, 1 to later times. */
  function shiftRange(direction: number) {
    const { fixed } = view.value
    const [from, to] = fixed ? [fixed.from, fixed.to] : liveRange(live.columns.times, range.value.preset.seconds)
    const offset = (direction * (to - from)) / 2
    navigate({ fixed: { from: from + offset, to: to + offset }, at: null })
  }

  return {
    range,
    history,
    isHistory,
    view,
    hoveredTime,
    frozenRange,
    navigate,
    pause,
    goLive,
    selectPreset: (key: RangePreset['key']) => resume(presetOf(key)),
    zoom,
    zoomOut,
    shiftRange,
    togglePause: () => (live.paused.value || isHistory.value ? goLive() : pause()),
    /** Pins a time in Unix seconds, or unpins the pinned one. */
    togglePin: (time: number) => navigate({ at: range.value.at === null ? time : null }, true),
    unpin: () => navigate({ at: null }, true),
  }
}

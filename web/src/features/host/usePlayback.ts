// Transport of the flight recorder: pause, replay at a speed, steps by samples and by events.
import { computed, onScopeDispose, ref, type Ref } from 'vue'
import type { HostEvent } from '../../api/types'
import { hubNow } from '../../lib/hubClock'
import type { LiveHost } from '../../live/useHost'
import type { TimeRange } from './useTimeRange'

/** Seconds of recorded time per second. */
const SPEEDS = ['1', '10', '60', '300'] as const
export type Speed = (typeof SPEEDS)[number]
export const SPEED_OPTIONS = SPEEDS.map((value) => ({ value, label: `${value}×` }))

/** Interval at which a replay moves on. */
export const TICK_MS = 250
/** Ticks after which the URL follows a running replay. */
const URL_TICKS = 8
/** Distance in seconds at which an event counts as the shown one. */
export const SAME_EVENT_S = 0.5

/** Events that the transport stops at. */
export const STEPPED_KINDS: readonly HostEvent['kind'][] = ['alert', 'gap', 'reboot']

export type Playback = ReturnType<typeof usePlayback>

/** Time of an event in Unix seconds: that of a reboot is the first sample after it. */
export const eventTime = (event: HostEvent) => (event.kind === 'reboot' && event.to_ms ? event.to_ms : event.from_ms) / 1000

export function usePlayback(timeRange: TimeRange, live: LiveHost, intervalMs: Ref<number>, events: Ref<readonly HostEvent[]>) {
  const { range, history, isHistory, playhead, instant, bounds, goTo, goLive, navigate, pause } = timeRange
  const speed = ref<Speed>('10')
  let timer: ReturnType<typeof setInterval> | undefined
  let ticks = 0

  const isPlaying = computed(() => playhead.value !== null)
  /** Whether the charts show the newest data as it arrives. */
  const isLive = computed(() => !range.value.fixed && range.value.at === null && !live.paused.value && !isPlaying.value && !isHistory.value)

  function stop() {
    clearInterval(timer)
    const at = playhead.value
    playhead.value = null
    if (at !== null) navigate({ at }, true)
  }

  function advance() {
    if (playhead.value === null) return clearInterval(timer)
    const next = playhead.value + (TICK_MS / 1000) * Number(speed.value)
    if (next >= hubNow() / 1000 - intervalMs.value / 1000) {
      clearInterval(timer)
      return goLive()
    }
    playhead.value = next
    const [from, to] = bounds()
    // The range moves on by half its width when the replay reaches its end.
    if (next > to) navigate({ fixed: { from: next - (to - from) / 2, to: next + (to - from) / 2 }, at: next }, true)
    else if (++ticks % URL_TICKS === 0) navigate({ at: next }, true)
  }

  function play() {
    const [from, to] = bounds()
    const start = instant.value ?? from
    navigate({ fixed: { from, to }, at: start }, true)
    playhead.value = start
    clearInterval(timer)
    timer = setInterval(advance, TICK_MS)
  }

  /** Pauses the live charts or the replay, or continues. */
  function toggle() {
    if (isPlaying.value) stop()
    else if (isLive.value) pause()
    else if (live.paused.value && !range.value.fixed) goLive()
    else play()
  }

  /** Moves the instant by a number of samples. */
  function step(count: number) {
    const [, to] = bounds()
    const base = instant.value ?? Math.min(to, hubNow() / 1000)
    const columns = history.columns.value
    const times = columns === null ? live.columns.times : columns.step === 0 ? columns.times : []
    const isInside = times.length > 0 && base >= times[0]! && base <= times.at(-1)!
    if (!isInside) return goTo(base + (count * Math.max(intervalMs.value, 1000)) / 1000, true)
    const after = times.findIndex((time) => time > base + 0.001)
    const current = (after < 0 ? times.length : after) - 1
    goTo(times[Math.min(Math.max(current + count, 0), times.length - 1)]!, true)
  }

  const eventTimes = computed(() =>
    events.value
      .filter(({ kind }) => STEPPED_KINDS.includes(kind))
      .map(eventTime)
      .sort((a, b) => a - b),
  )
  const nextEvent = computed(() => {
    const at = instant.value
    return at === null ? undefined : eventTimes.value.find((time) => time > at + SAME_EVENT_S)
  })
  const previousEvent = computed(() => {
    const before = (instant.value ?? Infinity) - SAME_EVENT_S
    return eventTimes.value.filter((time) => time < before).at(-1)
  })
  const goToEvent = (time: number | undefined) => time !== undefined && goTo(time)

  onScopeDispose(() => clearInterval(timer))
  return {
    speed,
    isPlaying,
    isLive,
    toggle,
    step,
    nextEvent,
    previousEvent,
    toNextEvent: () => goToEvent(nextEvent.value),
    toPreviousEvent: () => goToEvent(previousEvent.value),
  }
}

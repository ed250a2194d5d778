// Instant of a capsule: steps by samples and events, and replay at a speed.
import { computed, onScopeDispose, ref, type ShallowRef } from 'vue'
import type { HostEvent } from '../../api/types'
import type { CapsuleColumns } from '../../capsule/series'
import { eventTime, SAME_EVENT_S, type Speed, STEPPED_KINDS, TICK_MS } from '../host/usePlayback'

export function useReplay(
  window: { from: number; to: number },
  columns: ShallowRef<CapsuleColumns | null>,
  events: () => readonly HostEvent[],
) {
  const instant = ref(window.from)
  const speed = ref<Speed>('10')
  const isPlaying = ref(false)
  let timer: ReturnType<typeof setInterval> | undefined

  const limited = (time: number) => Math.min(Math.max(time, window.from), window.to)

  function stop() {
    clearInterval(timer)
    isPlaying.value = false
  }

  function goTo(time: number | undefined) {
    if (time === undefined) return
    stop()
    instant.value = limited(time)
  }

  function toggle() {
    if (isPlaying.value) return stop()
    if (instant.value >= window.to) instant.value = window.from
    isPlaying.value = true
    timer = setInterval(() => {
      instant.value = limited(instant.value + (TICK_MS / 1000) * Number(speed.value))
      if (instant.value >= window.to) stop()
    }, TICK_MS)
  }

  /** Moves the instant by a number of samples. */
  function step(count: number) {
    const times = columns.value?.times ?? []
    if (times.length === 0) return
    const after = times.findIndex((time) => time > instant.value + 0.001)
    const current = (after < 0 ? times.length : after) - 1
    goTo(times[Math.min(Math.max(current + count, 0), times.length - 1)])
  }

  const eventTimes = computed(() =>
    events()
      .filter(({ kind }) => STEPPED_KINDS.includes(kind))
      .map(eventTime)
      .sort((a, b) => a - b),
  )
  const nextEvent = computed(() => eventTimes.value.find((time) => time > instant.value + SAME_EVENT_S))
  const previousEvent = computed(() => eventTimes.value.filter((time) => time < instant.value - SAME_EVENT_S).at(-1))

  onScopeDispose(stop)
  return { instant, speed, isPlaying, goTo, toggle, step, nextEvent, previousEvent }
}

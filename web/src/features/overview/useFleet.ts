// Polls the overview while the page is visible, or reads it at a past time once. The hub computes the newest once a second
// for all viewers.
import { onScopeDispose, type Ref, shallowRef, watch } from 'vue'
import { api, unwrap } from '../../api/client'
import { errorMessage } from '../../api/errors'
import type { OverviewResponse } from '../../api/types'
import { useReconnect } from '../../useReconnect'
import { Fleet } from './fleet'

/** Time between an answer and the next request. */
export const REFRESH_INTERVAL_MS = 2_000
/** Longest time between two requests while the hub does not answer. */
const MAX_BACKOFF_MS = 30_000
/** Longest time of a repeated request. The first answer has all hosts, which lasts longer on a slow network. */
const MAX_REPEATED_MS = 10_000

/** `at` is the past time that is shown, as a parameter of the API; undefined for the newest values. */
export function useFleet(at?: Ref<string | undefined>) {
  const fleet = new Fleet()
  /** Increases with each answer. */
  const version = shallowRef(0)
  /** Newest answer without its columns. */
  const answer = shallowRef<Pick<OverviewResponse, 'totals' | 'top_processes' | 'filling' | 'replay'> | null>(null)
  const problem = shallowRef('')
  /** Time of the newest answer on the browser's clock. */
  const receivedMs = shallowRef(0)
  let timer: ReturnType<typeof setTimeout> | undefined
  let failures = 0
  let request = new AbortController()

  async function refresh() {
    clearTimeout(timer)
    timer = undefined
    // A later request replaces this one, which may never be answered.
    request.abort()
    request = new AbortController()
    const { signal } = request
    // After an outage, the browser may reuse a connection that no longer works.
    const limited = fleet.revision ? AbortSignal.any([signal, AbortSignal.timeout(MAX_REPEATED_MS)]) : signal
    const requested = at?.value
    try {
      const query = { at: requested, revision: fleet.revision || undefined }
      const next = await unwrap(api.GET('/api/v1/overview', { params: { query }, signal: limited }))
      if (signal.aborted) return
      fleet.update(next)
      answer.value = next
      receivedMs.value = Date.now()
      version.value++
      problem.value = ''
      failures = 0
    } catch (error) {
      if (signal.aborted) return
      problem.value = errorMessage(error)
      failures++
      // Values of another time would look like those of this time.
      if (requested) answer.value = null
    }
    schedule()
  }

  function schedule() {
    if (document.hidden || at?.value) return
    const backoff = REFRESH_INTERVAL_MS * 2 ** Math.min(failures, 4)
    timer = setTimeout(() => void refresh(), Math.min(backoff, MAX_BACKOFF_MS))
  }

  function onVisibility() {
    if (!document.hidden && timer === undefined && !at?.value) void refresh()
  }

  if (at) {
    watch(at, (time) => {
      // The course of the last minutes comes with the list of hosts.
      if (!time) fleet.revision = ''
      void refresh()
    })
  }

  useReconnect(refresh)
  document.addEventListener('visibilitychange', onVisibility)
  onScopeDispose(() => {
    clearTimeout(timer)
    request.abort()
    document.removeEventListener('visibilitychange', onVisibility)
  })
  void refresh()
  return { fleet, version, answer, problem, receivedMs, refresh }
}

export type FleetState = ReturnType<typeof useFleet>

// Loads the courses of the visible hosts while the overview shows a past time.
import { onScopeDispose, shallowRef, watch } from 'vue'
import { api, unwrap } from '../../api/client'
import { hubNow } from '../../lib/hubClock'
import type { Fleet } from './fleet'

/** `ids` are the hosts whose courses are drawn. The result changes when courses arrived. */
export function usePastCourses(fleet: Fleet, version: () => number, ids: () => readonly string[]) {
  const loaded = shallowRef(0)
  const request = new AbortController()
  let isLoading = false
  /** The time or the visible hosts changed during the request. */
  let isOutdated = false

  async function load() {
    isOutdated = isLoading
    if (isLoading || fleet.replayMs === null) return
    isLoading = true
    try {
      const { PastCourses } = await import('./pastCourses')
      const past = (fleet.past ??= new PastCourses())
      const atMs: number | null = fleet.replayMs
      const body = atMs === null ? null : past.missing(ids(), atMs, hubNow())
      if (body) {
        past.add(body, await unwrap(api.POST('/api/v1/query', { body, signal: request.signal })))
        loaded.value++
      }
    } catch {
      // The page is complete without courses; the next time of the replay requests them again.
    } finally {
      isLoading = false
    }
    if (isOutdated) void load()
  }

  watch([version, () => ids().join()], () => void load(), { immediate: true })
  onScopeDispose(() => request.abort())
  return loaded
}

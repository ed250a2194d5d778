// Number of open incidents, for all pages. The hub pushes it over the WebSocket on every change.
import { onBeforeUnmount, onMounted, shallowRef, watch, type MaybeRefOrGetter } from 'vue'
import { liveSocket } from './api/live'
import { type GetInit, type GetPath, type QueryOptions, useApiQuery } from './api/query'
import type { IncidentCounts } from './api/types'
import { useFetch } from './api/useFetch'

export const incidentCounts = shallowRef<IncidentCounts | null>(null)

/** Changes of one evaluation arrive as several messages; one request answers all of them. */
const RELOAD_DELAY_MS = 100

/** Updates the counts while the component is mounted. */
export function useIncidentCounts() {
  let unsubscribe: (() => void) | undefined
  onMounted(() => (unsubscribe = liveSocket().onIncidentCounts((counts) => (incidentCounts.value = counts))))
  onBeforeUnmount(() => unsubscribe?.())
}

function onIncidentChange(reload: () => unknown) {
  let timer: ReturnType<typeof setTimeout> | undefined
  watch(
    () => incidentCounts.value?.revision,
    () => {
      clearTimeout(timer)
      timer = setTimeout(reload, RELOAD_DELAY_MS)
    },
  )
  onBeforeUnmount(() => clearTimeout(timer))
}

/** Query that is repeated when incidents change. */
export function useIncidentQuery<P extends GetPath>(path: P, init?: MaybeRefOrGetter<GetInit<P>>, options?: QueryOptions) {
  const query = useApiQuery(path, init, options)
  onIncidentChange(() => query.refetch())
  return query
}

/** Request without a cache that is repeated when incidents change. */
export function useIncidentFetch<T>(path: () => string) {
  const fetched = useFetch<T>(path)
  onIncidentChange(() => fetched.load())
  return fetched
}

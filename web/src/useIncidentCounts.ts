// Number of open incidents, for all pages. The hub pushes it over the WebSocket on every change.
import { type MaybeRefOrGetter, onBeforeUnmount, onMounted, shallowRef, toValue, watch } from 'vue'
import { liveSocket } from './api/live'
import { type GetInit, type GetPath, type QueryOptions, useApiQuery } from './api/query'
import type { IncidentCounts } from './api/types'

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
  onIncidentChange(() => {
    // `refetch` alone would send disabled queries, too.
    if (toValue(options?.enabled ?? true)) void query.refetch()
  })
  return query
}

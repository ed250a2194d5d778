// The host, the list of hosts and the hub's system information, refreshed while the host page is open.
import { computed, watch } from 'vue'
import { useRoute } from 'vue-router'
import { ApiError } from '../../api/errors'
import { useHosts } from '../../api/hosts'
import { useApiQuery } from '../../api/query'
import { setTitle } from '../../lib/title'
import type { HostColumns } from '../../live/columns'

const REFRESH_INTERVAL_MS = 15_000

export function useHostInfo(id: string, live: HostColumns) {
  const route = useRoute()
  const options = { refetchInterval: REFRESH_INTERVAL_MS }
  const hostQuery = useApiQuery('/api/v1/hosts/{id}', { params: { path: { id } } }, options)
  const listQuery = useHosts(options)
  const systemQuery = useApiQuery('/api/v1/system', undefined, options)
  const host = hostQuery.data
  const system = systemQuery.data

  /** Text of the error if the host does not exist. While the hub is unreachable, loaded data stays visible. */
  const notFound = computed(() => {
    const error = hostQuery.error.value
    return error instanceof ApiError && error.status === 404 && !host.value ? hostQuery.problem.value : ''
  })

  // Times of the hub are converted to this browser's clock; the two may differ.
  watch(
    [host, system],
    () => {
      const seenMs = host.value?.last_seen_ms
      if (!system.value || seenMs === null || seenMs === undefined) return
      const clockOffsetMs = systemQuery.dataUpdatedAt.value - system.value.now_ms
      live.lastSeenMs = Math.max(live.lastSeenMs, seenMs + clockOffsetMs)
    },
    { immediate: true },
  )
  // Every navigation resets the title, also that to another range.
  watch(
    () => [host.value?.name, route.fullPath],
    () => host.value && setTitle(host.value.name),
    { immediate: true, flush: 'post' },
  )

  // The host itself is "online" as long as its last sample is not older than its interval: failures are those of the server.
  const isSsh = computed(() => host.value?.collection_method === 'ssh')
  const serverQuery = useApiQuery('/api/v1/servers', undefined, { ...options, enabled: isSsh })
  const server = computed(() => (isSsh.value ? serverQuery.data.value?.servers.find((other) => other.id === id) : undefined))

  return { host, server, hosts: computed(() => listQuery.data.value?.hosts ?? []), system, notFound }
}

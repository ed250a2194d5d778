// All visible hosts, loaded page by page.
import { useQuery } from '@tanstack/vue-query'
import { computed } from 'vue'
import { api, unwrap } from './client'
import { errorMessage } from './errors'
import type { GetData, QueryOptions } from './query'

type HostList = GetData<'/api/v1/hosts'>

const PAGE_SIZE = 1_000

/** Loads every page. A host that is renamed meanwhile is contained once. */
export async function loadHosts(signal?: AbortSignal): Promise<HostList> {
  const hosts = new Map<string, HostList['hosts'][number]>()
  let after: string | undefined
  for (;;) {
    const page = await unwrap(api.GET('/api/v1/hosts', { params: { query: { limit: PAGE_SIZE, after } }, signal }))
    page.hosts.forEach((host) => hosts.set(host.id, host))
    if (!page.next) return { ...page, hosts: [...hosts.values()] }
    after = page.next
  }
}

/** All hosts as a query. */
export function useHosts(options: Pick<QueryOptions, 'refetchInterval'> = {}) {
  const query = useQuery({
    queryKey: ['/api/v1/hosts', {}, 'all'],
    queryFn: ({ signal }) => loadHosts(signal),
    refetchInterval: options.refetchInterval ?? false,
    shallow: true,
  })
  const problem = computed(() => (query.error.value ? errorMessage(query.error.value) : ''))
  return { ...query, problem }
}

/** Replaces the tags of a host. */
export const setHostTags = (id: string, tags: string[]) =>
  unwrap(api.PUT('/api/v1/hosts/{id}/tags', { params: { path: { id } }, body: { tags } }))

/** Hosts of one request, as the hub limits them. */
const MAX_CHANGED_HOSTS = 1_000

/** Adds tags to hosts and removes others. Resolves to the number of hosts whose tags changed. */
export async function changeHostTags(ids: readonly string[], addTags: string[], removeTags: string[]): Promise<number> {
  let changed = 0
  for (let from = 0; from < ids.length; from += MAX_CHANGED_HOSTS) {
    const body = { ids: ids.slice(from, from + MAX_CHANGED_HOSTS), add_tags: addTags, remove_tags: removeTags }
    changed += (await unwrap(api.PATCH('/api/v1/hosts', { body }))).changed
  }
  return changed
}

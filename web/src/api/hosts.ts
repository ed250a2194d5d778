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

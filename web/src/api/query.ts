// Cached queries of the HTTP API. Requests with equal path and parameters share one answer.
import { keepPreviousData, QueryClient, useInfiniteQuery, useQuery } from '@tanstack/vue-query'
import type { FetchResponse, MaybeOptionalInit } from 'openapi-fetch'
import type { PathsWithMethod } from 'openapi-typescript-helpers'
import { computed, type MaybeRefOrGetter, toValue } from 'vue'
import { api, unwrap } from './client'
import { ApiError, errorMessage } from './errors'
import type { paths } from './schema'

export type GetPath = PathsWithMethod<paths, 'get'>
export type GetInit<P extends GetPath> = MaybeOptionalInit<paths[P], 'get'>
export type GetData<P extends GetPath> = NonNullable<
  FetchResponse<paths[P]['get'] & Record<string | number, unknown>, GetInit<P>, 'application/json'>['data']
>

/** Answers of the hub that a repetition does not change. */
const isFinal = (error: unknown) => error instanceof ApiError && error.status < 500

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      // The hub may be on this machine: the browser's online state is unrelated.
      networkMode: 'always',
      retry: (failures, error) => failures < 1 && !isFinal(error),
      retryDelay: 1_000,
      gcTime: 60_000,
      placeholderData: keepPreviousData,
    },
  },
})

export interface QueryOptions {
  /** Milliseconds between two requests; hidden tabs pause. */
  refetchInterval?: number | (() => number | false)
  /** Whether the request is sent at all; true by default. */
  enabled?: MaybeRefOrGetter<boolean>
  /** Keeps showing the previous answer while another parameter loads; true by default. */
  keepPrevious?: boolean
}

function get<P extends GetPath>(path: P, init: unknown, signal: AbortSignal): Promise<GetData<P>> {
  const request = { ...(init as object | undefined), signal }
  const send = api.GET as (path: P, init: object) => Promise<{ data?: GetData<P>; response: Response }>
  return unwrap(send(path, request))
}

/** GET request as a query. `init` may be a getter; changed parameters load another answer. */
export function useApiQuery<P extends GetPath>(path: P, init?: MaybeRefOrGetter<GetInit<P>>, options: QueryOptions = {}) {
  const query = useQuery({
    queryKey: computed(() => [path, toValue(init) ?? {}] as const),
    queryFn: ({ signal }) => get(path, toValue(init), signal),
    refetchInterval: options.refetchInterval ?? false,
    enabled: () => toValue(options.enabled ?? true),
    shallow: true,
    ...(options.keepPrevious === false ? { placeholderData: undefined } : {}),
  })
  /** Text of the last failure; empty after a success. */
  const problem = computed(() => (query.error.value ? errorMessage(query.error.value) : ''))
  return { ...query, problem }
}

/** Cursor of the next page in the answers of paged lists; null on the last page. */
type Paged = { next: number | null }

/**
 * List that is read page by page, newest entries first. `init` receives the cursor of the page, undefined for the first.
 * A repeated request covers all pages on screen, so that new entries leave no gap between two pages.
 */
export function useApiPages<P extends GetPath>(path: P, init: (before?: number) => GetInit<P>, options: QueryOptions = {}) {
  const query = useInfiniteQuery({
    queryKey: computed(() => [path as string, init() ?? {}, 'pages'] as const),
    queryFn: ({ signal, pageParam }): Promise<unknown> => get(path, init(pageParam), signal),
    initialPageParam: undefined as number | undefined,
    getNextPageParam: (page) => (page as Paged).next ?? undefined,
    refetchInterval: options.refetchInterval ?? false,
    enabled: () => toValue(options.enabled ?? true),
    shallow: true,
  })
  const problem = computed(() => (query.error.value ? errorMessage(query.error.value) : ''))
  const pages = computed(() => (query.data.value?.pages ?? []) as GetData<P>[])
  return { ...query, pages, problem }
}

/** Marks answers of these paths as outdated; those on screen are requested again. */
export async function invalidateQueries(...changed: GetPath[]) {
  await queryClient.invalidateQueries({ predicate: ({ queryKey }) => changed.includes(queryKey[0] as GetPath) })
}

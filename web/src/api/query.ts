// Cached queries of the HTTP API. Requests with equal path and parameters share one answer.
import { keepPreviousData, QueryClient, useQuery } from '@tanstack/vue-query'
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
      // The hub may be on this machine: the browser's online state says nothing about it.
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
  refetchInterval?: number
  /** Whether the request is sent at all; true by default. */
  enabled?: MaybeRefOrGetter<boolean>
  /** Keeps showing the previous answer while another parameter loads; true by default. */
  keepPrevious?: boolean
}

/** GET request as a query. `init` may be a getter; changed parameters load another answer. */
export function useApiQuery<P extends GetPath>(path: P, init?: MaybeRefOrGetter<GetInit<P>>, options: QueryOptions = {}) {
  const query = useQuery({
    queryKey: computed(() => [path, toValue(init) ?? {}] as const),
    queryFn: ({ signal }) => {
      const request = { ...(toValue(init) as object | undefined), signal }
      const get = api.GET as (path: P, init: object) => Promise<{ data?: GetData<P>; response: Response }>
      return unwrap(get(path, request))
    },
    refetchInterval: options.refetchInterval ?? false,
    enabled: () => toValue(options.enabled ?? true),
    shallow: true,
    ...(options.keepPrevious === false ? { placeholderData: undefined } : {}),
  })
  /** Text of the last failure; empty after a success. */
  const problem = computed(() => (query.error.value ? errorMessage(query.error.value) : ''))
  return { ...query, problem }
}

/** Marks answers of these paths as outdated; those on screen are requested again. */
export async function invalidateQueries(...changed: GetPath[]) {
  await queryClient.invalidateQueries({ predicate: ({ queryKey }) => changed.includes(queryKey[0] as GetPath) })
}

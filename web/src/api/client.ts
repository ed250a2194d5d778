// Typed client of the HTTP API, from the generated `schema.ts`.
import createClient, { type Middleware } from 'openapi-fetch'
import { compareClocks } from '../lib/hubClock'
import { dashboardUrl } from '../lib/base'
import { fetchConfirmed } from './confirmation'
import { endSession, isSessionError, readError } from './errors'
import type { paths } from './schema'

/** Longest time of a read. The hub ends its own requests earlier; a network may swallow an answer. */
const MAX_READ_MS = 40_000

/** Throws error answers as `ApiError`. */
const throwErrors: Middleware = {
  async onResponse({ response }) {
    if (!response.ok) throw await readError(response)
  },
}

/** Reports answers that mean that the session has ended. */
const watchSession: Middleware = {
  async onResponse({ response }) {
    if (response.status === 401 && isSessionError(await readError(response.clone()))) endSession()
  },
}

function createApi(...middleware: Middleware[]) {
  // The global `fetch` is looked up per request, so that tests can replace it.
  const api = createClient<paths>({
    baseUrl: dashboardUrl,
    headers: { accept: 'application/json' },
    fetch: async (request) => {
      const sentMs = Date.now()
      const isRead = request.method === 'GET'
      const signal = isRead ? AbortSignal.any([request.signal, AbortSignal.timeout(MAX_READ_MS)]) : request.signal
      const response = await fetchConfirmed(isRead ? new Request(request, { signal }) : request)
      compareClocks(response, sentMs)
      return response
    },
  })
  // Response middleware runs in reverse order: errors are thrown last.
  api.use(throwErrors, ...middleware)
  return api
}

export const api = createApi(watchSession)

/** Client whose errors do not end the session: used to ask whether a session exists. */
export const sessionApi = createApi()

/** Body of a successful answer; rejects with `ApiError` or, if no answer arrived, `TypeError`. */
export async function unwrap<T>(request: Promise<{ data?: T; response: Response }>): Promise<T> {
  return (await request).data as T
}

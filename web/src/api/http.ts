// Requests with untyped paths, for pages that do not use `client.ts` yet.
import { endSession, isSessionError, readError } from './errors'

export { ApiError, errorMessage } from './errors'

async function request<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const headers: Record<string, string> = { accept: 'application/json' }
  if (body !== undefined) headers['content-type'] = 'application/json'
  const response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal })
  if (!response.ok) {
    const error = await readError(response)
    if (isSessionError(error)) endSession()
    throw error
  }
  return (response.status === 204 ? undefined : await response.json()) as T
}

export const getJson = <T>(path: string, signal?: AbortSignal) => request<T>('GET', path, undefined, signal)

export const send = <T = void>(method: 'POST' | 'PUT' | 'PATCH' | 'DELETE', path: string, body?: unknown) => request<T>(method, path, body)

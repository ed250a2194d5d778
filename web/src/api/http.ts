// Requests: JSON out and in, the hub's own error message on failure. Who is not logged in any
// more is told to the session.
import type { Me } from './types'

export class ApiError extends Error {
  readonly status: number
  /** For programs; empty where no hub answered. */
  readonly code: string
  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

let onEnded: () => void = () => {}

/** Called when the hub does not know this browser any more. */
export function whenEnded(call: () => void) {
  onEnded = call
}

/** The session is over, however it was noticed. */
export function ended() {
  onEnded()
}

async function ask<T>(method: string, path: string, body?: unknown, signal?: AbortSignal, tells = true): Promise<T> {
  const headers: Record<string, string> = { accept: 'application/json' }
  if (body !== undefined) headers['content-type'] = 'application/json'
  const response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal })
  if (!response.ok) {
    const error = (await response.json().catch(() => null))?.error
    if (tells && response.status === 401 && (error?.code === 'login_needed' || error?.code === 'session_ended')) ended()
    throw new ApiError(response.status, error?.code ?? '', error?.message ?? `HTTP ${response.status}`)
  }
  return (response.status === 204 ? undefined : await response.json()) as T
}

export const getJson = <T>(path: string, signal?: AbortSignal) => ask<T>('GET', path, undefined, signal)

/** Who this browser is: the question itself ends no session. */
export const getMe = () => ask<Me>('GET', '/api/v1/auth/me', undefined, undefined, false)

export const send = <T = void>(method: 'POST' | 'PUT' | 'PATCH' | 'DELETE', path: string, body?: unknown) => ask<T>(method, path, body)

/** What went wrong, in words. */
export function words(error: unknown): string {
  if (error instanceof ApiError) return error.message.charAt(0).toUpperCase() + error.message.slice(1) + '.'
  return 'The hub does not answer.'
}

// Errors of the HTTP API: the error type, its text for the user, and the end of a session.
import { messageText, t } from '../i18n'

export class ApiError extends Error {
  readonly status: number
  /** Machine-readable code of the error envelope; empty if the answer had none. */
  readonly code: string

  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

/** Codes of a 401 answer that mean that the browser has no valid session. */
const SESSION_CODES = new Set(['authentication_required', 'session_expired'])

let sessionEndHandler: () => void = () => {}

/** Registers the handler that is called when the hub no longer accepts the session. */
export function onSessionEnded(handler: () => void) {
  sessionEndHandler = handler
}

/** Reports the end of the session, whether a request or the WebSocket noticed it. */
export function endSession() {
  sessionEndHandler()
}

/** Converts an error answer to an `ApiError`. */
export async function readError(response: Response): Promise<ApiError> {
  const envelope = (await response.json().catch(() => null)) as { error?: { code?: string; message?: string } } | null
  return new ApiError(response.status, envelope?.error?.code ?? '', envelope?.error?.message ?? `HTTP ${response.status}`)
}

export const isSessionError = (error: ApiError) => error.status === 401 && SESSION_CODES.has(error.code)

/** Text for the user. Codes with details in the hub's message keep that message; network errors share one text. */
export function errorMessage(error: unknown): string {
  if (!(error instanceof ApiError)) return t('common.hubNotResponding')
  const text = error.code ? messageText(`errors.${error.code}`) : null
  return text ?? `${error.message.charAt(0).toUpperCase()}${error.message.slice(1)}.`
}

// State of the page's live data for the top bar. A page without own data shows the state of the connection.
import { onScopeDispose, shallowRef, watchEffect } from 'vue'

export interface PageStream {
  /** Time of the newest data on the browser's clock, in Unix milliseconds; 0 before the first. */
  lastSeenMs: number
  intervalMs: number
  paused: boolean
  /** Time of the pause on the browser's clock, in Unix milliseconds. */
  pausedMs?: number
  /** Whether the page shows a past time. */
  replay?: boolean
  /** Whether the page asks the hub for its data: no data means no answer of the hub. */
  isPolled?: boolean
  /** Whether the last request of the page failed. */
  failing?: boolean
}

export const pageStream = shallowRef<PageStream | null>(null)

/** Shows the state of a page while it is open. */
export function usePageStream(read: () => PageStream) {
  watchEffect(() => (pageStream.value = read()))
  onScopeDispose(() => (pageStream.value = null))
}

interface PolledStream extends Pick<PageStream, 'lastSeenMs' | 'intervalMs' | 'replay'> {
  /** Error of the last request; empty after an answer. */
  problem: string
}

/** Shows the state of a page that asks the hub for its data at an interval. */
export function usePolledStream(read: () => PolledStream) {
  usePageStream(() => {
    const { problem, ...stream } = read()
    return { ...stream, paused: false, isPolled: true, failing: problem !== '' }
  })
}

// Reload of shown data after the connection to the hub was lost: what failed or was missed does not wait for its interval.
import { watch } from 'vue'
import { liveSocket } from './api/live'

/** Calls `reload` when the hub answers again, while the component is mounted. */
export function useReconnect(reload: () => unknown) {
  watch(liveSocket().state, ({ kind }, before) => {
    if (before.kind === 'reconnecting' && (kind === 'live' || kind === 'polling')) reload()
  })
}

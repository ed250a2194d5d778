// Hosts that lost their data together: a shared cause such as the network is likely.
import type { Host } from '../../api/types'

/** Distance of the last samples of two hosts that count as lost together. */
const TOGETHER_MS = 120_000

/** Other hosts without data whose last sample is of about the same time. */
export function silentTogether(host: Host, hosts: readonly Host[]): Host[] {
  const sinceMs = host.last_snapshot_ms
  return hosts.filter(
    ({ id, status, last_snapshot_ms: lastMs }) =>
      id !== host.id && status === 'no_data' && lastMs && sinceMs && Math.abs(lastMs - sinceMs) <= TOGETHER_MS,
  )
}

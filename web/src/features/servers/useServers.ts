// List of all agentless hosts, with the hub's time of the answer.
import { computed } from 'vue'
import { useApiQuery } from '../../api/query'
import { t } from '../../i18n'
import { duration } from '../../lib/format'

export function useServers() {
  const { data, problem, refetch, dataUpdatedAt } = useApiQuery('/api/v1/servers', undefined, { refetchInterval: 3_000 })
  const servers = computed(() => data.value?.servers)
  /** The hub's time of the answer. */
  const nowMs = computed(() => data.value?.now_ms ?? 0)

  /** Time of the next collection, relative to the hub's clock. */
  function nextRunText(nextRunMs: number): string {
    const remaining = (nextRunMs - nowMs.value) / 1000
    return remaining > 0 ? t('common.time.in', { duration: duration(remaining) }) : t('servers.now')
  }

  /** Age of a time, relative to the hub's clock. */
  function ageText(ms: number): string {
    return t('common.time.ago', { duration: duration((nowMs.value - ms) / 1000) })
  }

  return { servers, problem, nowMs, receivedMs: dataUpdatedAt, refetch, nextRunText, ageText }
}

// List of all agentless hosts, with the hub's time of the answer.
import { computed } from 'vue'
import { useApiQuery } from '../../api/query'
import { t } from '../../i18n'
import { duration } from '../../lib/format'

export function useServers() {
  const { data, problem } = useApiQuery('/api/v1/servers', undefined, { refetchInterval: 3_000 })
  const servers = computed(() => data.value?.servers)

  /** Time of the next collection, relative to the hub's clock. */
  function nextRunText(nextRunMs: number): string {
    const remaining = (nextRunMs - (data.value?.now_ms ?? 0)) / 1000
    return remaining > 0 ? t('common.time.in', { duration: duration(remaining) }) : t('servers.now')
  }

  /** Age of a time, relative to the hub's clock. */
  function ageText(ms: number): string {
    return t('common.time.ago', { duration: duration(((data.value?.now_ms ?? 0) - ms) / 1000) })
  }

  return { servers, problem, nextRunText, ageText }
}

// Columns of the host list: those of the overview, which can be hidden, and further ones, which can be shown.
import { computed, shallowRef } from 'vue'
import { t } from '../../i18n'
import { duration, format } from '../../lib/format'
import { onLoaded, readStored, store } from '../../lib/theme'
import type { ExtraColumn } from '../overview/shownRows'
import type { FleetState } from '../overview/useFleet'
import './texts'

export const TABLE_COLUMNS = ['cpu', 'memory', 'disk', 'rx', 'load', 'pressure', 'severity'] as const
export const EXTRA_COLUMNS = ['tx', 'uptime', 'cores', 'os', 'tags', 'seen'] as const
export type ColumnKey = (typeof TABLE_COLUMNS)[number] | (typeof EXTRA_COLUMNS)[number]
export const ALL_COLUMNS: readonly ColumnKey[] = [...TABLE_COLUMNS, ...EXTRA_COLUMNS]

const KEY = 'hosts.columns'
const DEFAULTS: readonly ColumnKey[] = TABLE_COLUMNS

function stored(): readonly ColumnKey[] {
  const keys = readStored(KEY)
  return Array.isArray(keys) ? ALL_COLUMNS.filter((key) => keys.includes(key)) : DEFAULTS
}

export const shownColumns = shallowRef<readonly ColumnKey[]>(stored())
onLoaded(KEY, () => (shownColumns.value = stored()))

export function showColumns(keys: readonly ColumnKey[]) {
  shownColumns.value = ALL_COLUMNS.filter((key) => keys.includes(key))
  store(KEY, JSON.stringify(shownColumns.value))
}
export const resetColumns = () => showColumns(DEFAULTS)

export function useHostColumns({ fleet }: Pick<FleetState, 'fleet'>) {
  const texts: Record<(typeof EXTRA_COLUMNS)[number], (index: number) => string> = {
    tx: (index) => format(fleet.values.tx[index], 'bytes_per_second'),
    uptime: (index) => duration(fleet.values.uptime_s[index]),
    cores: (index) => String(fleet.hosts[index]?.cores ?? '–'),
    os: (index) => fleet.hosts[index]?.os ?? '–',
    tags: (index) => fleet.hosts[index]?.tags.join(', ') || '–',
    seen: (index) => {
      const seenMs = fleet.values.last_seen_ms[index]
      return seenMs ? t('common.time.ago', { duration: duration((fleet.nowMs - seenMs) / 1000) }) : t('common.never')
    },
  }
  const hidden = computed(() => new Set<string>(TABLE_COLUMNS.filter((key) => !shownColumns.value.includes(key))))
  const extra = computed(() =>
    EXTRA_COLUMNS.filter((key) => shownColumns.value.includes(key)).map((key): ExtraColumn => ({
      key,
      label: t(`hostList.columns.${key}`),
      text: texts[key],
    })),
  )
  return { hidden, extra }
}

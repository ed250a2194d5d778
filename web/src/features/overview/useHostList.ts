// State of the host list: filter, group, sort and view. Filter, group and sort are in the URL; the view is also
// remembered in this browser.
import { computed, ref, shallowRef, watch } from 'vue'
import { useRoute, useRouter } from 'vue-router'
import { store, storedChoice } from '../../lib/theme'
import type { FleetState } from './useFleet'
import {
  filterHosts,
  groupHosts,
  type HostGroup,
  type HostRow,
  type Sort,
  SORT_KEYS,
  type SortKey,
  sortHosts,
  tagKeys,
  toRows,
} from './hostRows'

export type View = 'table' | 'map'
export const MAP_METRICS = ['cpu', 'memory', 'disk'] as const
export type MapMetric = (typeof MAP_METRICS)[number]

/** Fleets above this size open as a map. */
const MAX_TABLE_HOSTS = 300
/** Time between two sorts by live values: rows that move all the time cannot be read. */
const SORT_INTERVAL_MS = 5_000
const NO_GROUP = 'none'
const DEFAULT_GROUP = 'environment'

const text = (value: unknown) => (typeof value === 'string' ? value : '')

export function useHostList({ fleet, version }: Pick<FleetState, 'fleet' | 'version'>) {
  const route = useRoute()
  const router = useRouter()
  const setQuery = (name: string, value: string | undefined) =>
    void router.replace({ query: { ...route.query, [name]: value || undefined } })

  const filter = computed({ get: () => text(route.query.filter), set: (value) => setQuery('filter', value) })

  const keys = computed(() => (void version.value, tagKeys(fleet.hosts)))
  const groupKey = computed({
    get: () => text(route.query.group) || (keys.value.includes(DEFAULT_GROUP) ? DEFAULT_GROUP : NO_GROUP),
    set: (value) => setQuery('group', value),
  })

  const sort = computed<Sort>(() => {
    const [key, order] = text(route.query.sort).split('-')
    if (!SORT_KEYS.includes(key as SortKey)) return { key: 'severity', descending: true }
    return { key: key as SortKey, descending: order !== 'asc' }
  })
  function sortBy(key: SortKey) {
    const isSame = sort.value.key === key
    const descending = isSame ? !sort.value.descending : key !== 'name'
    setQuery('sort', `${key}-${descending ? 'desc' : 'asc'}`)
  }

  const storedView = ref<View | ''>(storedChoice('hosts.view', ['table', 'map'], ''))
  const view = computed<View>({
    get: () => {
      const chosen = text(route.query.view) || storedView.value
      return chosen === 'table' || chosen === 'map' ? chosen : (void version.value, fleet.hosts.length > MAX_TABLE_HOSTS ? 'map' : 'table')
    },
    set: (value) => {
      storedView.value = value
      store('hosts.view', value)
      setQuery('view', value)
    },
  })
  const mapMetric = computed<MapMetric>({
    get: () => MAP_METRICS.find((metric) => metric === route.query.color) ?? 'cpu',
    set: (value) => setQuery('color', value === 'cpu' ? undefined : value),
  })

  const collapsed = shallowRef<ReadonlySet<string>>(new Set())
  function toggleGroup(name: string) {
    const next = new Set(collapsed.value)
    if (!next.delete(name)) next.add(name)
    collapsed.value = next
  }

  /** While the pointer is over the list, its rows keep their order. */
  const isHeld = ref(false)
  const groups = shallowRef<HostGroup[]>([])
  let sortedMs = 0
  let revision = ''

  function arrange() {
    const indices = sortHosts(filterHosts(fleet.hosts, fleet.values, filter.value), fleet.hosts, fleet.values, sort.value)
    groups.value =
      groupKey.value === NO_GROUP ? (indices.length ? [{ name: '', indices }] : []) : groupHosts(indices, fleet.hosts, groupKey.value)
    // The clock of the browser may be set back.
    sortedMs = performance.now()
    revision = fleet.revision
  }
  watch([filter, sort, groupKey], arrange, { immediate: true })
  watch(version, () => {
    // Other hosts have other indices: the order must follow at once.
    if (fleet.revision !== revision || (!isHeld.value && performance.now() - sortedMs >= SORT_INTERVAL_MS)) arrange()
  })

  const rows = computed<HostRow[]>(() => {
    if (groupKey.value !== NO_GROUP) return toRows(groups.value, collapsed.value)
    return groups.value.flatMap((group) => group.indices.map((index): HostRow => ({ kind: 'host', index })))
  })

  return { filter, keys, groupKey, sort, sortBy, view, mapMetric, collapsed, toggleGroup, isHeld, groups, rows, setQuery }
}

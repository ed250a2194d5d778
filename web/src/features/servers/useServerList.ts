// State of the list of agentless hosts: filter and sort in the URL, selection, order while the pointer is over it.
import { computed, type Ref, ref, shallowRef, watch } from 'vue'
import { useRoute, useRouter } from 'vue-router'
import type { Server } from '../../api/types'
import { allTags, SERVER_STATES, type ServerState, shownServers, type Sort, SORT_KEYS, type SortKey } from './serverRows'

/** Rows that are added at a time: thousands of rows would slow each update down. */
const PAGE_ROWS = 200

const text = (value: unknown) => (typeof value === 'string' ? value : '')

export function useServerList(servers: Ref<Server[] | undefined>) {
  const route = useRoute()
  const router = useRouter()
  const setQuery = (name: string, value: string) => void router.replace({ query: { ...route.query, [name]: value || undefined } })

  const filter = computed({ get: () => text(route.query.filter), set: (value) => setQuery('filter', value) })
  const state = computed<ServerState | ''>({
    get: () => SERVER_STATES.find((option) => option === route.query.state) ?? '',
    set: (value) => setQuery('state', value),
  })
  const tag = computed({ get: () => text(route.query.tag), set: (value) => setQuery('tag', value) })
  const sort = computed<Sort>(() => {
    const [key, order] = text(route.query.sort).split('-')
    if (!SORT_KEYS.includes(key as SortKey)) return { key: 'name', descending: false }
    return { key: key as SortKey, descending: order === 'desc' }
  })
  function sortBy(key: SortKey) {
    const isSame = sort.value.key === key
    // Usage starts with the highest value, names and times with the first.
    const isUsage = !['name', 'age', 'next'].includes(key)
    setQuery('sort', `${key}-${(isSame ? !sort.value.descending : isUsage) ? 'desc' : 'asc'}`)
  }
  const isFiltered = computed(() => filter.value !== '' || state.value !== '' || tag.value !== '')
  const clearFilter = () => void router.replace({ query: { ...route.query, filter: undefined, state: undefined, tag: undefined } })

  /** While the pointer is over the list, its rows keep their order. */
  const isHeld = ref(false)
  const order = shallowRef<string[]>([])
  function arrange() {
    const shown = shownServers(servers.value ?? [], { text: filter.value, state: state.value, tag: tag.value }, sort.value)
    order.value = shown.map(({ id }) => id)
  }
  watch([filter, state, tag, sort], arrange, { immediate: true })
  const ids = computed(() => servers.value?.map(({ id }) => id).join(' '))
  watch([servers, ids], (_, before) => {
    // Added and removed hosts are shown at once.
    if (!isHeld.value || ids.value !== before[1]) arrange()
  })

  const byId = computed(() => new Map(servers.value?.map((server) => [server.id, server])))
  const matching = computed(() => order.value.flatMap((id) => byId.value.get(id) ?? []))
  const limit = ref(PAGE_ROWS)
  const rows = computed(() => matching.value.slice(0, limit.value))
  const hidden = computed(() => Math.max(matching.value.length - limit.value, 0))
  const showMore = () => (limit.value += PAGE_ROWS)
  const tags = computed(() => allTags(servers.value ?? []))

  const selectedIds = ref<string[]>([])
  const selected = computed(() => selectedIds.value.flatMap((id) => byId.value.get(id) ?? []))
  const isAllSelected = computed({
    get: () => rows.value.length > 0 && rows.value.every(({ id }) => selectedIds.value.includes(id)),
    set: (all) => (selectedIds.value = all ? rows.value.map(({ id }) => id) : []),
  })

  return {
    ...{ filter, state, tag, sort, sortBy, isFiltered, clearFilter, isHeld, rows, hidden, showMore, tags },
    ...{ selectedIds, selected, isAllSelected, setQuery, pageRows: PAGE_ROWS },
  }
}

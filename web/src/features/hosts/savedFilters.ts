// Filters of the host list that the user keeps under a name.
import { shallowRef } from 'vue'
import { onLoaded, readStored, store } from '../../lib/theme'

export interface SavedFilter {
  name: string
  filter: string
}

const KEY = 'hosts.filters'
const MAX_FILTERS = 20

function stored(): SavedFilter[] {
  const list = readStored(KEY)
  const isFilter = (entry: SavedFilter) => typeof entry?.name === 'string' && typeof entry.filter === 'string'
  return Array.isArray(list) ? (list as SavedFilter[]).filter(isFilter).slice(0, MAX_FILTERS) : []
}

export const savedFilters = shallowRef<readonly SavedFilter[]>(stored())
onLoaded(KEY, () => (savedFilters.value = stored()))

function replace(list: SavedFilter[]) {
  savedFilters.value = list.sort((a, b) => a.name.localeCompare(b.name)).slice(0, MAX_FILTERS)
  store(KEY, JSON.stringify(savedFilters.value))
}

/** Keeps a filter; one of the same name is replaced. */
export const saveFilter = (name: string, filter: string) =>
  replace([...savedFilters.value.filter((entry) => entry.name !== name), { name, filter }])
export const deleteFilter = (name: string) => replace(savedFilters.value.filter((entry) => entry.name !== name))

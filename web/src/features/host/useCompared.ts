// What a host page is compared with: the same host a day or a week before, or another host at the same time.
import { computed, type Ref } from 'vue'
import type { Host } from '../../api/types'
import { EARLIER } from './range'
import type { TimeRange } from './useTimeRange'

export interface Compared {
  /** Id or name. */
  host: string
  /** Seconds by which the compared time is earlier. */
  shift: number
  /** Name of another host; empty for the same host. */
  label: string
}

/** Null without comparison. */
export function useCompared(id: string, { range }: TimeRange, hosts: Ref<readonly Host[]>) {
  return computed((): Compared | null => {
    const { compare } = range.value
    if (!compare) return null
    if (compare === 'day' || compare === 'week') return { host: id, shift: EARLIER[compare], label: '' }
    const other = hosts.value.find((host) => host.id === compare || host.name === compare)
    return { host: compare, shift: 0, label: other?.name ?? compare }
  })
}

/** Another host that the page is compared with; undefined for the same host at an earlier time. */
export function useOtherHost(compared: Ref<Compared | null>, hosts: Ref<readonly Host[]>) {
  return computed(() => {
    const name = compared.value?.label && compared.value.host
    return name ? hosts.value.find((host) => host.id === name || host.name === name) : undefined
  })
}

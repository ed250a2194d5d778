// Hosts that the user shows in the navigation.
import { shallowRef } from 'vue'
import { onLoaded, readStored, store } from './theme'

export const MAX_PINS = 8
const KEY = 'pins'

function stored(): string[] {
  const ids = readStored(KEY)
  return Array.isArray(ids) ? ids.filter((id) => typeof id === 'string').slice(0, MAX_PINS) : []
}

/** Ids of the pinned hosts in the order of the navigation. */
export const pins = shallowRef<readonly string[]>(stored())
onLoaded(KEY, () => (pins.value = stored()))

/** Pins a host, or removes its pin. The oldest pin goes when there are too many. */
export function togglePin(id: string) {
  pins.value = pins.value.includes(id) ? pins.value.filter((pinned) => pinned !== id) : [...pins.value, id].slice(-MAX_PINS)
  store(KEY, JSON.stringify(pins.value))
}

// Menus and lists of the first pages are loaded when they are first opened: until then, a button stands in their place,
// and the first load stays small.
import { type Component, ref, shallowRef } from 'vue'

export function useLazyOverlay<T extends Component>(load: () => Promise<{ default: T }>) {
  const overlay = shallowRef<T>()
  const open = ref(false)

  /** Fetches the code ahead of a click. */
  const prefetch = () => void load().catch(() => undefined)

  async function openOverlay() {
    overlay.value = (await load()).default
    open.value = true
  }

  return { overlay, open, prefetch, openOverlay }
}

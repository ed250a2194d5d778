// How many incidents are open, for all pages: told by the hub whenever that changes.
import { onBeforeUnmount, onMounted, shallowRef, watch } from 'vue'
import { useAsked } from './api/asked'
import { liveSocket } from './api/live'
import type { AlertCounts } from './api/types'

export const alertCounts = shallowRef<AlertCounts | null>(null)

/** Keeps the counts as long as the component is there. */
export function useAlertCounts() {
  let end: (() => void) | undefined
  onMounted(() => (end = liveSocket().onAlerts((counts) => (alertCounts.value = counts))))
  onBeforeUnmount(() => end?.())
}

/** An answer that is asked for anew whenever alerts change. */
export function useAlerting<T>(path: () => string) {
  const asked = useAsked<T>(path)
  let soon: ReturnType<typeof setTimeout> | undefined
  watch(
    () => alertCounts.value?.revision,
    () => {
      clearTimeout(soon)
      soon = setTimeout(() => void asked.load(), 100)
    },
  )
  onBeforeUnmount(() => clearTimeout(soon))
  return asked
}

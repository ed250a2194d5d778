// How many incidents are open, for all pages: told by the hub whenever that changes.
import { onBeforeUnmount, onMounted, ref, shallowRef, watch } from 'vue'
import { getJson, words } from './api/http'
import { liveSocket } from './api/live'
import type { AlertCounts } from './api/types'

export const alertCounts = shallowRef<AlertCounts | null>(null)

/** Keeps the counts as long as the component is there. */
export function useAlertCounts() {
  let end: (() => void) | undefined
  onMounted(() => (end = liveSocket().onAlerts((counts) => (alertCounts.value = counts))))
  onBeforeUnmount(() => end?.())
}

/** A list that is loaded anew whenever alerts change. */
export function useAlerting<T>(path: () => string) {
  const list = shallowRef<T | null>(null)
  const problem = ref('')
  let asked = 0
  async function load() {
    const mine = ++asked
    try {
      const answer = await getJson<T>(path())
      // A later question was faster.
      if (mine !== asked) return
      list.value = answer
      problem.value = ''
    } catch (error) {
      if (mine === asked) problem.value = words(error)
    }
  }
  let soon: ReturnType<typeof setTimeout> | undefined
  onMounted(load)
  watch([() => alertCounts.value?.revision, path], () => {
    clearTimeout(soon)
    soon = setTimeout(load, 100)
  })
  onBeforeUnmount(() => clearTimeout(soon))
  return { list, problem, load }
}

// State of the alert pages in the address, so that a link shows the same list.
import { computed, type WritableComputedRef } from 'vue'
import { useRoute, useRouter } from 'vue-router'

/** Text of a query parameter that is replaced without a new entry in the history of the browser. */
export function useQueryText(name: string, fallback = ''): WritableComputedRef<string> {
  const route = useRoute()
  const router = useRouter()
  return computed({
    get: () => {
      const value = route.query[name]
      return typeof value === 'string' ? value : fallback
    },
    set: (value) => void router.replace({ query: { ...route.query, [name]: value && value !== fallback ? value : undefined } }),
  })
}

/** Query parameter with one of some values. */
export function useQueryChoice<T extends string>(name: string, values: readonly T[], fallback: T): WritableComputedRef<T> {
  const text = useQueryText(name, fallback)
  return computed({
    get: () => values.find((value) => value === text.value) ?? fallback,
    set: (value) => (text.value = value),
  })
}

/** Sets several query parameters at once; `undefined` removes a parameter. */
export function useSetQuery() {
  const route = useRoute()
  const router = useRouter()
  return (changes: Record<string, string | undefined>) => void router.replace({ query: { ...route.query, ...changes } })
}

// Requests of a component without a cache: on mount, when the path changes, and on `load()`.
import { onBeforeUnmount, onMounted, ref, shallowRef, watch } from 'vue'
import { errorMessage, getJson } from './http'

export function useFetch<T>(path: () => string) {
  const data = shallowRef<T | null>(null)
  const problem = ref('')
  const abort = new AbortController()
  let latestRequest = 0
  async function load() {
    const request = ++latestRequest
    try {
      const answer = await getJson<T>(path(), abort.signal)
      // A later request was answered first.
      if (request !== latestRequest) return
      data.value = answer
      problem.value = ''
    } catch (error) {
      if (request === latestRequest && !abort.signal.aborted) problem.value = errorMessage(error)
    }
  }
  onMounted(load)
  watch(path, load)
  onBeforeUnmount(() => abort.abort())
  return { data, problem, load }
}

/** Like `useFetch`, repeated every `intervalMs`. */
export function usePolling<T>(path: () => string, intervalMs = 3_000) {
  const fetched = useFetch<T>(path)
  let timer: ReturnType<typeof setInterval>
  onMounted(() => (timer = setInterval(() => void fetched.load(), intervalMs)))
  onBeforeUnmount(() => clearInterval(timer))
  return fetched
}

// What the hub says, asked again every few seconds while the page is open.
import { onBeforeUnmount, onMounted, ref, shallowRef } from 'vue'
import { getJson, words } from '../../api/http'

export function usePolled<T>(path: () => string, everyMs = 3_000) {
  const list = shallowRef<T | null>(null)
  const problem = ref('')
  const gone = new AbortController()
  async function load() {
    try {
      list.value = await getJson<T>(path(), gone.signal)
      problem.value = ''
    } catch (error) {
      if (!gone.signal.aborted) problem.value = words(error)
    }
  }
  let timer: ReturnType<typeof setInterval>
  onMounted(() => {
    void load()
    timer = setInterval(() => void load(), everyMs)
  })
  onBeforeUnmount(() => {
    gone.abort()
    clearInterval(timer)
  })
  return { list, problem, load }
}

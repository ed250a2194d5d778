// What the hub answers to a question, asked when the component is there, when the question changes,
// and whenever the page says so: every few seconds, after a change, as alerts change.
import { onBeforeUnmount, onMounted, ref, shallowRef, watch } from 'vue'
import { getJson, words } from './http'

export function useAsked<T>(path: () => string) {
  const list = shallowRef<T | null>(null)
  const problem = ref('')
  const gone = new AbortController()
  let asked = 0
  async function load() {
    const mine = ++asked
    try {
      const answer = await getJson<T>(path(), gone.signal)
      // A later question was faster.
      if (mine !== asked) return
      list.value = answer
      problem.value = ''
    } catch (error) {
      if (mine === asked && !gone.signal.aborted) problem.value = words(error)
    }
  }
  onMounted(load)
  watch(path, load)
  onBeforeUnmount(() => gone.abort())
  return { list, problem, load }
}

/** The same, again every few milliseconds. */
export function usePolled<T>(path: () => string, everyMs = 3_000) {
  const asked = useAsked<T>(path)
  let timer: ReturnType<typeof setInterval>
  onMounted(() => (timer = setInterval(() => void asked.load(), everyMs)))
  onBeforeUnmount(() => clearInterval(timer))
  return asked
}

// A list from the hub: loaded when the page opens and after each change, with what went wrong.
import { onMounted, ref, shallowRef } from 'vue'
import { getJson, words } from '../../api/http'

export function useList<T>(path: string) {
  const list = shallowRef<T | null>(null)
  const problem = ref('')
  async function load() {
    try {
      list.value = await getJson<T>(path)
      problem.value = ''
    } catch (error) {
      problem.value = words(error)
    }
  }
  onMounted(load)
  return { list, problem, load }
}

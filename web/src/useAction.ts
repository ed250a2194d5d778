// State of an action of a button or form: whether it runs, and the error text of its last run.
import { ref } from 'vue'
import { errorMessage } from './api/errors'

export function useAction() {
  const busy = ref(false)
  const problem = ref('')

  /** Runs the action. Resolves to whether it succeeded; a failure sets `problem`. */
  async function run(action: () => Promise<unknown>): Promise<boolean> {
    busy.value = true
    problem.value = ''
    try {
      await action()
      return true
    } catch (error) {
      problem.value = errorMessage(error)
      return false
    } finally {
      busy.value = false
    }
  }

  return { busy, problem, run }
}

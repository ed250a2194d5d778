// The same action on several objects, one after the other, with its progress and its failures.
import { computed, ref, shallowRef } from 'vue'
import { errorMessage } from './api/errors'

export interface BulkFailure {
  name: string
  error: string
}

export function useBulk() {
  const total = ref(0)
  const done = ref(0)
  const failures = shallowRef<BulkFailure[]>([])
  const busy = computed(() => done.value < total.value)

  /** Runs the action for each item. Resolves to the number of items for which it succeeded. */
  async function run<T extends { name: string }>(items: readonly T[], action: (item: T) => Promise<unknown>): Promise<number> {
    total.value = items.length
    done.value = 0
    const failed: BulkFailure[] = []
    for (const item of items) {
      try {
        await action(item)
      } catch (error) {
        failed.push({ name: item.name, error: errorMessage(error) })
      }
      done.value++
    }
    failures.value = failed
    return items.length - failed.length
  }

  return { total, done, busy, failures, run }
}

// Effect of unsaved settings on storage, requested a moment after the last change.
import { onScopeDispose, ref, shallowRef, watch } from 'vue'
import { api, unwrap } from '../../api/client'
import { errorMessage } from '../../api/errors'
import type { SettingsPreview } from '../../api/types'

const DELAY_MS = 250

export function usePreview(changes: () => Record<string, number | null>, enabled: () => boolean) {
  const preview = shallowRef<SettingsPreview | null>(null)
  /** Effect of the settings in effect, for the comparison. */
  const current = shallowRef<SettingsPreview | null>(null)
  const problem = ref('')
  const loading = ref(false)
  let timer: ReturnType<typeof setTimeout> | undefined
  let sequence = 0

  const request = (values: Record<string, number | null>) => unwrap(api.POST('/api/v1/settings/preview', { body: { version: 0, values } }))

  async function load() {
    const number = ++sequence
    const values = changes()
    loading.value = true
    try {
      if (!current.value || !Object.keys(values).length) current.value = await request({})
      const answer = Object.keys(values).length ? await request(values) : current.value
      if (number !== sequence) return
      preview.value = answer
      problem.value = ''
    } catch (error) {
      if (number === sequence) problem.value = errorMessage(error)
    } finally {
      if (number === sequence) loading.value = false
    }
  }

  watch(
    () => [enabled(), JSON.stringify(changes())] as const,
    ([isEnabled]) => {
      clearTimeout(timer)
      if (isEnabled) timer = setTimeout(() => void load(), preview.value ? DELAY_MS : 0)
    },
    { immediate: true },
  )
  onScopeDispose(() => clearTimeout(timer))
  return { preview, current, problem, loading, reload: load }
}

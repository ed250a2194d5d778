// Settings of the hub with unsaved changes. Drafts outlive the page, so that they survive navigation.
import { computed, reactive, ref } from 'vue'
import { api, unwrap } from '../../api/client'
import { ApiError } from '../../api/errors'
import { invalidateQueries, queryClient, useApiQuery } from '../../api/query'
import type { Setting, SettingGroup } from '../../api/types'
import { useAction } from '../../useAction'

/** Unsaved values by name; null is "no value". */
const drafts = reactive(new Map<string, number | null>())
/** Fields whose text is no valid value. */
const invalid = reactive(new Map<string, 'format' | 'range'>())

/** Settings of one group with their drafts, and the actions of the save bar. */
export function useSettings(group: SettingGroup) {
  const query = useApiQuery('/api/v1/settings')
  const { busy, problem, run } = useAction()
  const conflict = ref(false)
  /** Key of the fields: a new one drops texts that are no values. */
  const generation = ref(0)
  /** Values before the last save, for "Undo". */
  const undoValues = ref<Record<string, number | null> | null>(null)

  const byName = computed(() => new Map((query.data.value?.settings ?? []).map((setting) => [setting.name, setting])))
  const names = computed(() => [...byName.value.values()].filter((setting) => setting.group === group).map(({ name }) => name))
  const dirty = computed(() => names.value.filter((name) => drafts.has(name) && drafts.get(name) !== setting(name)?.value))
  const invalidCount = computed(() => names.value.filter((name) => invalid.has(name)).length)

  function setting(name: string): Setting | undefined {
    return byName.value.get(name)
  }

  /** Value on screen: the draft, or the value in effect. */
  function valueOf(name: string): number | null {
    const draft = drafts.get(name)
    return draft === undefined ? (setting(name)?.value ?? null) : draft
  }

  function change(name: string, value: number | null) {
    undoValues.value = null
    drafts.set(name, value)
  }

  function setInvalid(name: string, reason: '' | 'format' | 'range') {
    if (reason) invalid.set(name, reason)
    else invalid.delete(name)
  }

  const invalidOf = (name: string) => invalid.get(name)

  function discard() {
    for (const name of names.value) {
      drafts.delete(name)
      invalid.delete(name)
    }
    conflict.value = false
    problem.value = ''
    generation.value++
  }

  /** Changed values as the API takes them: without a stored value, the default counts. */
  const changes = computed(() =>
    Object.fromEntries(
      dirty.value.map((name) => {
        const value = valueOf(name)
        return [name, value === setting(name)?.default ? null : value]
      }),
    ),
  )

  async function put(values: Record<string, number | null>) {
    const version = query.data.value?.version ?? 0
    const answer = await unwrap(api.PUT('/api/v1/settings', { body: { version, values } }))
    queryClient.setQueryData(['/api/v1/settings', {}], answer)
    await invalidateQueries('/api/v1/channels/kinds')
  }

  async function save() {
    const before = Object.fromEntries(dirty.value.map((name) => [name, setting(name)!.source === 'database' ? setting(name)!.value : null]))
    conflict.value = false
    const saved = await run(async () => {
      try {
        await put(changes.value)
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 409) throw error
        conflict.value = true
        // Shows who changed what; the drafts stay.
        await query.refetch()
      }
    })
    if (!saved || conflict.value) return false
    discard()
    undoValues.value = before
    return true
  }

  async function undo() {
    const values = undoValues.value
    if (values && (await run(() => put(values)))) undoValues.value = null
  }

  return {
    query,
    busy,
    problem,
    conflict,
    generation,
    undoValues,
    dirty,
    invalidCount,
    changes,
    setting,
    valueOf,
    change,
    invalidOf,
    setInvalid,
    discard,
    save,
    undo,
  }
}

export type SettingsForm = ReturnType<typeof useSettings>

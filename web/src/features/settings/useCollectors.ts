// Collection policy with unsaved changes. The draft outlives the page, so that it survives navigation.
import { computed, reactive, ref, shallowRef } from 'vue'
import { api, unwrap } from '../../api/client'
import { ApiError } from '../../api/errors'
import { queryClient, useApiQuery } from '../../api/query'
import type { CollectionOverride, CollectionPolicy, CollectorSetting } from '../../api/types'
import { useAction } from '../../useAction'
import type { SaveBarForm } from './saveBarForm'

/** Changed policy; null without a change. */
const draft = shallowRef<CollectionPolicy | null>(null)
/** Fields whose text is no valid value. */
const invalid = reactive(new Set<string>())

const NO_REQUEST: CollectorSetting = { disabled: false, interval_ms: null }
const EMPTY: CollectionPolicy = { collectors: {}, overrides: [] }
const isDefault = (setting: CollectorSetting) => !setting.disabled && (setting.interval_ms ?? null) === null

/** Policy in one form, so that equal policies have equal texts. */
export function normalized(policy: CollectionPolicy): CollectionPolicy {
  const setting = (value: CollectorSetting) => ({ disabled: value.disabled ?? false, interval_ms: value.interval_ms ?? null })
  const settings = (collectors: CollectionPolicy['collectors']) =>
    Object.entries(collectors ?? {})
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => [name, setting(value)] as const)
  return {
    // For all hosts, a request without effect is none; in an override, it replaces the request for all hosts.
    collectors: Object.fromEntries(settings(policy.collectors).filter(([, value]) => !isDefault(value))),
    overrides: (policy.overrides ?? []).map((entry) => ({
      hosts: entry.hosts ?? [],
      tags: entry.tags ?? [],
      interval_ms: entry.interval_ms ?? null,
      collectors: Object.fromEntries(settings(entry.collectors)),
    })),
  }
}

/** Names of the parts in which two policies differ: collectors, and positions of overrides. */
export function differences(a: CollectionPolicy, b: CollectionPolicy): string[] {
  const differs = (left: unknown, right: unknown) => JSON.stringify(left) !== JSON.stringify(right)
  const names = new Set([...Object.keys(a.collectors ?? {}), ...Object.keys(b.collectors ?? {})])
  const changed = [...names].filter((name) => differs(a.collectors?.[name], b.collectors?.[name]))
  const count = Math.max(a.overrides?.length ?? 0, b.overrides?.length ?? 0)
  const places = Array.from({ length: count }, (_, index) => index)
  return [...changed, ...places.filter((index) => differs(a.overrides?.[index], b.overrides?.[index])).map(String)]
}

export function useCollectors() {
  const query = useApiQuery('/api/v1/collectors')
  const { busy, problem, run } = useAction()
  const conflict = ref(false)
  /** Key of the fields: a new one drops texts that are no values. */
  const generation = ref(0)
  /** Policy before the last save, for "Undo". */
  const undoValues = shallowRef<CollectionPolicy | null>(null)

  const stored = computed(() => normalized(query.data.value?.policy ?? EMPTY))
  const policy = computed(() => draft.value ?? stored.value)
  const dirty = computed(() => (draft.value ? differences(draft.value, stored.value) : []))

  function edit(change: (policy: CollectionPolicy) => void) {
    undoValues.value = null
    // Selections of dialogs are reactive; a structured clone of them is not possible.
    const copy = JSON.parse(JSON.stringify(policy.value)) as CollectionPolicy
    change(copy)
    draft.value = normalized(copy)
  }

  const requestsOf = (policy: CollectionPolicy, override: number | null) =>
    override === null ? policy.collectors! : policy.overrides![override]!.collectors!

  /** Own request of a profile about a collector; `override` is a position, or null for all hosts. */
  const ownSetting = (override: number | null, name: string): CollectorSetting | undefined => requestsOf(policy.value, override)[name]

  /** Request in effect: the own one, or that for all hosts. */
  const settingOf = (override: number | null, name: string): CollectorSetting =>
    ownSetting(override, name) ?? policy.value.collectors?.[name] ?? NO_REQUEST

  function change(override: number | null, name: string, values: Partial<CollectorSetting>) {
    const setting = { ...settingOf(override, name), ...values }
    edit((policy) => (requestsOf(policy, override)[name] = setting))
  }

  function reset(override: number | null, name: string) {
    edit((policy) => delete requestsOf(policy, override)[name])
  }

  const setInterval = (override: number, intervalMs: number | null) =>
    edit((policy) => (policy.overrides![override]!.interval_ms = intervalMs))
  const addOverride = (entry: CollectionOverride) => edit((policy) => policy.overrides!.push(entry))
  const removeOverride = (override: number) => edit((policy) => policy.overrides!.splice(override, 1))
  const selectHosts = (override: number, hosts: string[], tags: string[]) =>
    edit((policy) => Object.assign(policy.overrides![override]!, { hosts, tags }))

  function setInvalid(field: string, reason: string) {
    if (reason) invalid.add(field)
    else invalid.delete(field)
  }

  function discard() {
    draft.value = null
    invalid.clear()
    conflict.value = false
    problem.value = ''
    generation.value++
  }

  async function put(policy: CollectionPolicy) {
    const version = query.data.value?.version ?? 0
    const answer = await unwrap(api.PUT('/api/v1/collectors', { body: { version, policy } }))
    queryClient.setQueryData(['/api/v1/collectors', {}], answer)
  }

  async function save() {
    const before = stored.value
    conflict.value = false
    const saved = await run(async () => {
      try {
        await put(policy.value)
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 409) throw error
        conflict.value = true
        // Shows who changed what; the draft stays.
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

  const form: SaveBarForm = {
    query,
    busy,
    problem,
    conflict,
    undoValues,
    dirty,
    invalidCount: computed(() => invalid.size),
    discard,
    save,
    undo,
  }
  return {
    form,
    query,
    policy,
    generation,
    ownSetting,
    settingOf,
    change,
    reset,
    setInterval,
    addOverride,
    removeOverride,
    selectHosts,
    setInvalid,
  }
}

export type CollectorsForm = ReturnType<typeof useCollectors>

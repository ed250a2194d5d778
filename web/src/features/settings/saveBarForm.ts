// Form of the save bar, and several forms of a page as one.
import { computed, type Ref } from 'vue'

export interface SaveBarForm {
  query: { data: Readonly<Ref<LastChange | undefined>>; problem: Readonly<Ref<string>>; refetch: () => unknown }
  busy: Readonly<Ref<boolean>>
  problem: Readonly<Ref<string>>
  conflict: Readonly<Ref<boolean>>
  /** Values before the last save; null if there is nothing to undo. */
  undoValues: Readonly<Ref<unknown>>
  /** Names of changed values. */
  dirty: Readonly<Ref<readonly string[]>>
  invalidCount: Readonly<Ref<number>>
  discard: () => void
  save: () => Promise<boolean>
  undo: () => Promise<void>
}

interface LastChange {
  changed_ms?: number | null
  changed_by?: string | null
}

/** Forms that are saved together, one after the other, until a save fails. */
export function joinForms(forms: readonly SaveBarForm[]): SaveBarForm {
  const all = <T>(read: (form: SaveBarForm) => T[]) => computed(() => forms.flatMap(read))
  const first = (read: (form: SaveBarForm) => string) => computed(() => forms.map(read).find((text) => text) ?? '')
  return {
    query: {
      // All answers, or none: the page shows its forms together.
      data: computed(() => {
        const answers = forms.map((form) => form.query.data.value)
        if (answers.some((answer) => !answer)) return undefined
        return answers.reduce((a, b) => ((b?.changed_ms ?? 0) > (a?.changed_ms ?? 0) ? b : a))
      }),
      problem: first((form) => form.query.problem.value),
      refetch: () => Promise.all(forms.map((form) => form.query.refetch())),
    },
    busy: computed(() => forms.some((form) => form.busy.value)),
    problem: first((form) => form.problem.value),
    conflict: computed(() => forms.some((form) => form.conflict.value)),
    undoValues: computed(() => forms.map((form) => form.undoValues.value).find((values) => values) ?? null),
    dirty: all((form) => [...form.dirty.value]),
    invalidCount: computed(() => forms.reduce((sum, form) => sum + form.invalidCount.value, 0)),
    discard: () => forms.forEach((form) => form.discard()),
    async save() {
      for (const form of forms) if (form.dirty.value.length > 0 && !(await form.save())) return false
      return true
    },
    async undo() {
      for (const form of forms) if (form.undoValues.value) await form.undo()
    },
  }
}

// State of the list of open incidents: filter and open lines in the address, selection, keys, and actions with undo.
import { computed, nextTick, ref, shallowRef, watch, type Ref } from 'vue'
import type { Incident, Severity } from '../../api/types'
import { currentUser, hasRole } from '../../session'
import { useAction } from '../../useAction'
import { useShortcuts } from '../../useShortcuts'
import { acknowledge, unacknowledge } from './incidentActions'
import { filterIncidents, firstToExplain, groupIncidents, INCIDENT_STATES, type IncidentStateFilter } from './incidentGroups'
import { useQueryChoice, useQueryText, useSetQuery } from './urlState'

/** Value of `open` for a list in which no explanation is shown. */
const NONE = 'none'
/** Time for which an acknowledgment can be undone. */
const UNDO_MS = 8_000

export function useIncidentList(incidents: Ref<readonly Incident[]>, silence: (incidents: readonly Incident[]) => void) {
  const setQuery = useSetQuery()
  const text = useQueryText('filter')
  const severity = useQueryChoice<Severity | ''>('severity', ['critical', 'warning', 'info', ''], '')
  const state = useQueryChoice<IncidentStateFilter | ''>('state', [...INCIDENT_STATES, ''], '')
  const filter = computed(() => ({ text: text.value.trim(), severity: severity.value, state: state.value }))
  const isFiltered = computed(() => Object.values(filter.value).some(Boolean))
  const clearFilter = () => setQuery({ filter: undefined, severity: undefined, state: undefined })

  const opened = useQueryText('open')
  const folds = shallowRef<ReadonlySet<string>>(new Set())
  const shown = computed(() => filterIncidents(incidents.value, filter.value))
  const groups = computed(() => groupIncidents(shown.value, (key) => folds.value.has(key)))
  const openId = computed(() => (opened.value === NONE ? '' : opened.value || firstToExplain(shown.value)))
  const toggle = (id: string) => (opened.value = openId.value === id ? NONE : id)
  function toggleFold(key: string) {
    const next = new Set(folds.value)
    if (!next.delete(key)) next.add(key)
    folds.value = next
  }

  const canAcknowledge = computed(() => hasRole('operator'))
  /** Silences concern all hosts: users whose access is limited by tags may not create them. */
  const canSilence = computed(() => hasRole('operator') && !currentUser.value?.host_tags?.length)

  const selected = shallowRef<ReadonlySet<string>>(new Set())
  watch(incidents, (list) => {
    const ids = new Set(list.map(({ id }) => id))
    const remaining = [...selected.value].filter((id) => ids.has(id))
    if (remaining.length !== selected.value.size) selected.value = new Set(remaining)
  })
  function select(ids: readonly string[]) {
    const next = new Set(selected.value)
    const isAdding = ids.some((id) => !next.has(id))
    for (const id of ids)
      if (isAdding) next.add(id)
      else next.delete(id)
    selected.value = next
  }
  const clearSelection = () => (selected.value = new Set())
  const byId = (ids: Iterable<string>) => [...ids].flatMap((id) => incidents.value.filter((incident) => incident.id === id))

  const { busy, problem, run } = useAction()
  /** Incidents whose acknowledgment can be undone. */
  const undoable = ref<string[]>([])
  let undoTimer: ReturnType<typeof setTimeout> | undefined
  async function acknowledgeAll(list: readonly Incident[]) {
    const ids = list.filter((incident) => !incident.ack).map(({ id }) => id)
    if (!ids.length || !canAcknowledge.value || busy.value) return
    if (!(await run(() => acknowledge(ids)))) return
    clearSelection()
    undoable.value = ids
    clearTimeout(undoTimer)
    undoTimer = setTimeout(() => (undoable.value = []), UNDO_MS)
  }
  function undo() {
    const ids = undoable.value
    undoable.value = []
    return run(() => unacknowledge(ids))
  }

  /** Incident of the line that has the focus. */
  const focusedId = () => document.activeElement?.closest<HTMLElement>('[data-incident]')?.dataset.incident
  function move(step: number) {
    const links = [...document.querySelectorAll<HTMLElement>('[data-incident] a.main')]
    const at = links.findIndex((link) => link.closest<HTMLElement>('[data-incident]')!.dataset.incident === focusedId())
    const next = at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + step, 0), links.length - 1)
    void nextTick(() => links[next]?.focus())
  }
  /** What a key acts on: the selection, or the line that has the focus. */
  const targets = () => byId(selected.value.size ? selected.value : [focusedId() ?? ''])
  useShortcuts({
    j: () => move(1),
    k: () => move(-1),
    x: () => canAcknowledge.value && focusedId() && select([focusedId()!]),
    v: () => focusedId() && toggle(focusedId()!),
    a: () => void acknowledgeAll(targets()),
    m: () => canSilence.value && targets().length && silence(targets()),
  })

  return {
    text,
    severity,
    state,
    isFiltered,
    clearFilter,
    groups,
    openId,
    toggle,
    folds,
    toggleFold,
    canAcknowledge,
    canSilence,
    selected,
    select,
    clearSelection,
    selectedIncidents: () => byId(selected.value),
    busy,
    problem,
    acknowledgeAll,
    undoable,
    undo,
  }
}

// Series of all hosts of a capsule, decoded one after the other, and the processes of the selected host.
import { computed, onScopeDispose, ref, shallowReactive, shallowRef, watch } from 'vue'
import type { Capsule } from '../../capsule/capsule'
import type { ProcessHistory } from '../../capsule/processes'
import type { CapsuleColumns } from '../../capsule/series'
import { type Ribbon, ribbonOf } from '../host/ribbon'
import { errorReason } from './errorText'

export interface CapsuleLane {
  name: string
  columns: CapsuleColumns | null
  ribbon: Ribbon | null
  /** Reason for which the host cannot be shown. */
  problem: string
}

export function useCapsuleHosts(capsule: Capsule) {
  const { document } = capsule
  const lanes = shallowReactive(document.hosts.map(({ name }): CapsuleLane => ({ name, columns: null, ribbon: null, problem: '' })))
  const first = document.incidents[0]?.incident.alerts[0]?.host_name
  const selected = ref(
    Math.max(
      0,
      lanes.findIndex(({ name }) => name === first),
    ),
  )
  const processes = shallowRef<ProcessHistory | null>(null)
  const processError = ref('')
  let isStopped = false

  async function load() {
    // The selected host first; the others fill their lanes.
    const order = [selected.value, ...lanes.keys()]
    for (const index of order) {
      const lane = lanes[index]
      if (!lane || lane.columns || lane.problem || isStopped) continue
      try {
        const columns = await capsule.columns(index)
        lanes[index] = { ...lane, columns, ribbon: ribbonOf(document, columns) }
      } catch (error) {
        lanes[index] = { ...lane, problem: errorReason(error) }
      }
    }
  }
  void load()
  watch(
    selected,
    async (index) => {
      processes.value = null
      processError.value = ''
      try {
        const history = await capsule.processes(index)
        if (index === selected.value) processes.value = history
      } catch (error) {
        if (index === selected.value) processError.value = errorReason(error)
      }
    },
    { immediate: true },
  )
  onScopeDispose(() => (isStopped = true))

  const lane = computed(() => lanes[selected.value] ?? null)
  const host = computed(() => document.hosts[selected.value] ?? null)
  return { lanes, selected, lane, host, processes, processError }
}

// Charts of the host page, updated when the set of series changes and not on every tick.
import { shallowRef, watch, type Ref } from 'vue'
import type { Columns } from '../../live/columns'
import { type Panel, panels } from './panels'

const signature = (list: Panel[]) =>
  JSON.stringify(list.map((panel) => [panel.title, panel.max, panel.series.map(({ metric, instance }) => [metric, instance])]))

export function usePanels(columns: Ref<Columns>, version: Ref<number>) {
  const cores = shallowRef<string[]>([])
  const shown = shallowRef(panels(columns.value))
  let shownSignature = signature(shown.value)
  watch([version, columns], () => {
    const next = panels(columns.value)
    const nextSignature = signature(next)
    if (nextSignature !== shownSignature) {
      shownSignature = nextSignature
      shown.value = next
    }
    const names = columns.value.instances('cpu.core.usage')
    if (names.length !== cores.value.length) cores.value = names
  })
  return { cores, panels: shown }
}

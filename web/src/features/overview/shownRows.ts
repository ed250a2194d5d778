// Texts and levels of the visible rows of the host table.
import { t } from '../../i18n'
import { duration, format } from '../../lib/format'
import { CPU_LEVELS, type Level, levelOf, LOAD_LEVELS, PRESSURE_LEVELS } from '../../lib/levels'
import type { Fleet } from './fleet'
import type { HostGroup } from './hostRows'

export interface ShownHost {
  kind: 'host'
  key: string
  index: number
  id: string
  name: string
  note: string
  dot: string
  cpu: string
  cpuLevel: Level
  memory: number | null
  disk: number | null
  mount: string
  network: string
  load: string
  loadLevel: Level
  pressure: string
  pressureLevel: Level
  isMissing: boolean
}
export type ShownRow = ShownHost | { kind: 'group'; key: string; group: HostGroup; isCollapsed: boolean; critical: number; warning: number }

/** Column of a page that shows the text of a host. */
export interface ExtraColumn {
  key: string
  label: string
  text: (index: number) => string
}

function dotOf({ values }: Fleet, index: number): string {
  const { status, critical, warning } = values
  if (status[index] === 'no_data') return 'offline'
  if (status[index] !== 'online') return 'muted'
  return critical[index] ? 'critical' : warning[index] ? 'warning' : 'ok'
}

function noteOf(fleet: Fleet, index: number): string {
  const { status, last_seen_ms: lastSeen } = fleet.values
  const { tags, cores, collection_method: method } = fleet.hosts[index]!
  const seenMs = lastSeen[index]
  if (status[index] === 'no_data') {
    return seenMs ? t('overview.noDataFor', { duration: duration((fleet.nowMs - seenMs) / 1000) }) : t('hosts.states.no_data')
  }
  if (status[index] !== 'online') return t(`hosts.states.${status[index]!}`)
  const values = tags.map((tag) => tag.slice(tag.indexOf('=') + 1)).slice(0, 2)
  const facts = [...values, cores ? t('common.coreCount', { count: cores }) : '', method === 'ssh' ? t('overview.ssh') : '']
  return facts.filter((text) => text !== '').join(' · ')
}

/** Row of a host as shown. */
export function showHost(fleet: Fleet, index: number): ShownHost {
  const { values, hosts } = fleet
  const { id, name, cores } = hosts[index]!
  const load = values.load[index] ?? null
  return {
    kind: 'host',
    key: id,
    index,
    id,
    name,
    note: noteOf(fleet, index),
    dot: dotOf(fleet, index),
    cpu: format(values.cpu[index], 'percent'),
    cpuLevel: levelOf(values.cpu[index], CPU_LEVELS),
    memory: values.memory[index] ?? null,
    disk: values.disk[index] ?? null,
    mount: values.disk_mount[index] ?? '',
    network: format(values.rx[index], 'bytes_per_second'),
    load: load === null ? '–' : load.toFixed(load >= 10 ? 1 : 2),
    loadLevel: levelOf(load === null || !cores ? null : load / cores, LOAD_LEVELS),
    pressure: format(values.pressure[index], 'percent'),
    pressureLevel: levelOf(values.pressure[index], PRESSURE_LEVELS),
    isMissing: values.status[index] === 'no_data',
  }
}

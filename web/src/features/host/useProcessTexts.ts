// Texts about the shown processes: their time, and why there are none.
import './texts'
import { computed } from 'vue'
import { t } from '../../i18n'
import { dateTime } from '../../lib/format'
import type { HostState } from './useHostState'

export function useProcessTexts({ instant, timeRange, silentSinceMs }: HostState) {
  const { snapshot, showsLive, isRange, selectedTime } = instant
  const timeLabel = computed(() => {
    if (showsLive.value && silentSinceMs.value) return t('host.processes.lastSample', { time: dateTime(silentSinceMs.value) })
    if (showsLive.value) return t('host.processes.live')
    if (isRange.value) return t('host.processes.overRange')
    const time = dateTime((snapshot.at.value ?? selectedTime.value!) * 1000)
    return timeRange.hoveredTime.value === null ? t('host.processes.pinned', { time }) : t('host.processes.at', { time })
  })
  const emptyText = computed(() => {
    if (showsLive.value) return t('host.processes.none')
    if (snapshot.loading.value) return t('host.processes.loading')
    return snapshot.problem.value || t('host.processes.noneInRange')
  })
  return { timeLabel, emptyText }
}

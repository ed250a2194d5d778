// Texts of silences: what they match and when they are active.
import type { SilenceRow } from '../../api/types'
import { useHosts } from '../../api/hosts'
import { useApiQuery } from '../../api/query'
import { t } from '../../i18n'
import { dateTime } from '../../lib/format'
import { fromDateTimeInput, toDateTimeInput } from '../../lib/zone'
import { dayName } from './display'

export interface SilenceMatch {
  kind: 'host' | 'tag' | 'rule'
  name: string
}

export function useSilenceTexts() {
  const { data: rules } = useApiQuery('/api/v1/rules')
  const { data: hosts } = useHosts()
  const hostName = (id: string) => hosts.value?.hosts.find((host) => host.id === id)?.name ?? t('alerts.silences.deletedHost')
  const ruleName = (id: string) => rules.value?.rules.find((row) => row.rule.id === id)?.rule.name ?? t('alerts.silences.deletedRule')

  function matches({ silence: { matcher } }: SilenceRow): SilenceMatch[] {
    return [
      ...(matcher.rules ?? []).map((id) => ({ kind: 'rule' as const, name: ruleName(id) })),
      ...(matcher.hosts ?? []).map((id) => ({ kind: 'host' as const, name: hostName(id) })),
      ...(matcher.tags ?? []).map((name) => ({ kind: 'tag' as const, name })),
    ]
  }
  const matchText = (row: SilenceRow) =>
    matches(row)
      .map(({ name }) => name)
      .join(' · ') || t('alerts.silences.everything')

  return { rules, matches, matchText }
}

export function stateText(row: SilenceRow): string {
  if (row.active) return t('alerts.silences.active')
  return row.expired ? t('alerts.silences.expired') : t('alerts.silences.scheduled')
}

export function scheduleText({ silence }: SilenceRow): string {
  const { weekly, starts_ms: startsMs } = silence
  if (!weekly) return t('alerts.silences.once', { time: dateTime(startsMs) })
  const days = weekly.days?.length ? weekly.days.map(dayName).join(', ') : t('alerts.silences.daily')
  return t('alerts.silences.weekly', { days, from: weekly.from, to: weekly.to, zone: weekly.timezone || 'UTC' })
}

export const endText = ({ silence }: SilenceRow) => (silence.ends_ms ? dateTime(silence.ends_ms) : t('alerts.silences.untilRemoved'))

/** Value of an `<input type="datetime-local">` without seconds. */
export const toMinuteInput = (ms: number) => toDateTimeInput(ms).slice(0, 16)

/** Time of an `<input type="datetime-local">`; null if it is empty. */
export const fromMinuteInput = (text: string) => (text ? fromDateTimeInput(text) : null)

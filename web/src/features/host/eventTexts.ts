// Texts of the events of a host.
import './texts'
import type { HostEvent } from '../../api/types'
import { gapReason } from '../../charts/marks'
import { messageText, t } from '../../i18n'
import { duration } from '../../lib/format'

export function durationText({ from_ms, to_ms }: HostEvent): string {
  return to_ms === null ? '' : duration(Math.max(1, Math.round((to_ms - from_ms) / 1000)))
}

/** Heading and explanation of an event. */
export function eventTexts(event: HostEvent): { title: string; detail: string } {
  const { kind, text, detail, before, after } = event
  const change = before || after ? t('host.events.change', { before: before || '–', after: after || '–' }) : ''
  switch (kind) {
    case 'alert':
      return { title: text, detail }
    case 'gap':
      return {
        title: gapReason(detail),
        detail: event.to_ms === null ? t('host.events.gapOpen') : t('host.events.gapOver', { duration: durationText(event) }),
      }
    case 'reboot':
      return { title: t('host.events.kinds.reboot'), detail: t('host.events.down', { duration: durationText(event) }) }
    case 'first_seen':
      return { title: t('host.events.kinds.first_seen'), detail: '' }
    case 'system':
    case 'agent':
      return { title: messageText(`host.events.changed.${text}`) ?? text, detail: change }
    default:
      return { title: messageText(`host.events.actions.${text.replaceAll('.', '_')}`) ?? text, detail: change }
  }
}

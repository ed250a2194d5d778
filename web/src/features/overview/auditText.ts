// Sentences about changes of the audit log.
import type { ActivityEntry } from '../../api/types'
import { addTexts, messageText, t } from '../../i18n'
import { activity } from '../../locales/en/lazy/activity'

addTexts({ activity })

/** Sentence about a change; an action without a text of its own is written in words. */
export function auditText({ actor, text: action, object }: Pick<ActivityEntry, 'actor' | 'text' | 'object'>): string {
  const name = actor.replace(/^user /, '')
  const verb = action.slice(action.indexOf('.') + 1)
  const message = messageText(`activity.${verb}`)
  if (!message) return t('overview.activity.audit', { actor: name, action: action.replaceAll(/[._]/g, ' '), object })
  return message.replace('{actor}', () => name).replace('{object}', () => object)
}

// Texts of the state of agentless hosts and of their collections.
import './texts'
import type { Server } from '../../api/types'
import { messageText, t } from '../../i18n'

export interface ServerStatus {
  text: string
  tone: '' | 'ok' | 'warning' | 'critical'
}

/** State of the last collection; reasons that prevent collections come first. */
export function serverStatus(server: Server): ServerStatus {
  if (!server.enabled) return { text: t('servers.states.disabled'), tone: '' }
  if (server.blocked?.cause === 'host_key_changed') return { text: t('servers.states.hostKeyChanged'), tone: 'critical' }
  if (server.blocked) return { text: t('servers.states.authenticationFailed'), tone: 'critical' }
  if (!server.last) return { text: t('servers.states.never'), tone: '' }
  if (server.last.cause === 'timed_out') return { text: t('servers.states.timedOut'), tone: 'warning' }
  if (server.last.cause) return { text: t('servers.states.failing'), tone: 'warning' }
  return { text: t('servers.states.ok'), tone: 'ok' }
}

/** Text of a collection's trigger; a trigger without a text is shown as it is. */
export const triggerText = (trigger: string) => messageText(`servers.triggers.${trigger}`) ?? trigger

/** Milliseconds as seconds with one decimal. */
export const secondsText = (ms: number) => (ms / 1000).toFixed(1)

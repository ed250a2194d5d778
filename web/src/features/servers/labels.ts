// Texts of the state of agentless hosts and of their collections.
import './texts'
import type { CollectionStep, FailureCause, Server } from '../../api/types'
import { dayClock } from '../../dayTime'
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

type Stage = CollectionStep['stage']
const STAGES: readonly Stage[] = ['resolve', 'connect', 'handshake', 'authenticate', 'shell', 'read']
/** Stages that a failure of the cause belongs to, whatever came before: with a jump host, stages repeat. */
const STAGE_OF: Partial<Record<FailureCause, Stage>> = {
  dns_failure: 'resolve',
  unreachable: 'connect',
  not_ssh: 'handshake',
  no_common_algorithm: 'handshake',
  host_key_changed: 'handshake',
  authentication_failed: 'authenticate',
  invalid_private_key: 'authenticate',
  credentials_required: 'authenticate',
  command_failed: 'shell',
  output_too_large: 'read',
  unparseable_output: 'read',
}

/** Stage in which a collection failed: that of its cause, or the one after its last completed stage. */
export function failedStage(steps: readonly CollectionStep[], cause: FailureCause | null | undefined): Stage | null {
  if (!cause) return null
  const last = steps.at(-1)
  return STAGE_OF[cause] ?? STAGES[Math.min(last ? STAGES.indexOf(last.stage) + 1 : 0, STAGES.length - 1)]!
}

/** Failure of the last collection as a sentence; empty after a success and of a server that is not collected. */
export function failureText({ enabled, last }: Server): string {
  if (!enabled || !last?.cause) return ''
  const stage = STAGE_OF[last.cause]
  const args = { error: last.error ?? t('servers.states.failing'), time: dayClock(last.finished_ms) }
  return stage ? t('servers.failedIn', { ...args, stage: t(`servers.stages.${stage}`) }) : t('servers.failed', args)
}

/** Text of a collection's trigger; a trigger without a text is shown as it is. */
export const triggerText = (trigger: string) => messageText(`servers.triggers.${trigger}`) ?? trigger

/** Milliseconds as seconds with one decimal. */
export const secondsText = (ms: number) => (ms / 1000).toFixed(1)

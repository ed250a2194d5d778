// Why a look came to nothing, what its steps are called, and how a server stands, in words.
import type { Server, CollectionStep } from '../../api/types'

/** What to do about it; the hub's own words say what it was. */
export const FAILURE_HINTS: Record<string, string> = {
  unknown_name: 'Is the name spelt right, and known to the hub’s resolver?',
  unreachable: 'Is it up, does its SSH server listen on this port, and do firewalls let the hub through?',
  timed_out: 'Is it up, and the way to it free? A firewall that drops packets looks like this.',
  no_ssh: 'Does an SSH server listen on this port?',
  no_common_way: 'Its SSH server is too old, or set to ciphers and keys that nobody else knows.',
  host_key_changed: 'It was installed anew, or somebody stands in between. Compare the key there before you trust it.',
  login_refused: 'Not tried again until you change it, so that no account is locked.',
  unusable_key: 'Not tried again until you change it.',
  closed: 'Its SSH server ends connections: too many at one time, or an address that it bars.',
  command_failed: 'Its account needs a shell; perfwatch probe prints what is run there.',
  too_much: 'Its shell prints much before anybody asks; see its profile files.',
  garbled: 'Only Linux hosts are understood.',
  internal: 'See the hub’s log.',
}

export const STAGE_LABELS: Record<CollectionStep['name'], string> = {
  resolve: 'Name',
  connect: 'Connection',
  handshake: 'Host key',
  login: 'Login',
  shell: 'Shell',
  read: 'Figures',
}

export const TRIGGER_LABELS: Record<string, string> = { scheduled: 'scheduled', asked: 'asked for', live: 'watched', test: 'test' }

export interface ServerStatus {
  text: string
  dot: '' | 'ok' | 'warn' | 'bad'
}

export function serverStatus(server: Server): ServerStatus {
  if (!server.enabled) return { text: 'switched off', dot: '' }
  if (server.refused) return { text: server.refused.cause === 'host_key_changed' ? 'other host key' : 'not let in', dot: 'bad' }
  if (!server.last) return { text: 'not looked at yet', dot: '' }
  if (server.last.cause) return { text: server.last.cause === 'timed_out' ? 'does not answer' : 'fails', dot: 'warn' }
  return { text: 'fine', dot: 'ok' }
}

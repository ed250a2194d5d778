// State of the form of an agentless host: input, validation, request, draft.
import { computed, reactive, ref } from 'vue'
import type { Server, ServerRequest } from '../../api/types'
import { type PlainMessageKey, t } from '../../i18n'
import { readDraft, writeDraft } from '../../lib/draft'
import { parseTags } from '../../lib/tags'
import { dependentPasswords, passwordDependents } from './dependents'
import './texts'

export const RESOURCES = ['cpu', 'memory', 'disk'] as const
/** Thresholds of a new server in percent. */
const DEFAULT_THRESHOLDS: Server['thresholds'] = { cpu: 90, memory: 95, disk: 90 }
/** Shortest interval that the hub accepts. */
const MIN_INTERVAL_S = 60
const MAX_INTERVAL_S = 86_400
const UNIT_SECONDS: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400 }

export type Field = 'name' | 'address' | 'port' | 'user' | 'interval' | 'credentials' | (typeof RESOURCES)[number]

/** Seconds of a duration such as `15m` or `1h30m`; null if it is none. */
export function parseInterval(text: string): number | null {
  if (!/^(\d+[smhd])+$/.test(text)) return null
  return [...text.matchAll(/(\d+)([smhd])/g)].reduce((sum, [, number, unit]) => sum + Number(number) * UNIT_SECONDS[unit!]!, 0)
}

function initialInput(server: Server | null) {
  const thresholds = server?.thresholds ?? DEFAULT_THRESHOLDS
  return {
    name: server?.name ?? '',
    address: server?.address ?? '',
    port: (server?.port ?? 22) as number | '',
    user: server?.user ?? '',
    authMethod: server?.auth_method ?? ('key' as 'key' | 'password'),
    jump: server?.jump ?? '',
    tags: server?.tags.join(', ') ?? '',
    interval: server?.interval ?? '15m',
    thresholds: {
      cpu: (thresholds.cpu ?? '') as number | '',
      memory: (thresholds.memory ?? '') as number | '',
      disk: (thresholds.disk ?? '') as number | '',
    },
    enabled: server?.enabled ?? true,
  }
}

export type ServerInput = ReturnType<typeof initialInput>
type Secrets = { password: string; key: string; passphrase: string }

/** Errors of the input by field, apart from those that only the hub knows. */
export function inputErrors(input: ServerInput, { key }: Secrets, takenNames: ReadonlySet<string>): Partial<Record<Field, string>> {
  const errors: Partial<Record<Field, string>> = {}
  const check = (field: Field, isValid: boolean, message: PlainMessageKey) => {
    if (!isValid && !errors[field]) errors[field] = t(message)
  }
  check('name', /^.{1,253}$/.test(input.name.trim()), 'agentless.form.errors.name')
  check('name', !takenNames.has(input.name), 'agentless.form.errors.nameTaken')
  check('address', /^[^\s@/]{1,253}$/.test(input.address), 'agentless.form.errors.address')
  check('port', Number.isInteger(input.port) && Number(input.port) >= 1 && Number(input.port) <= 65_535, 'agentless.form.errors.port')
  check('user', /^\S{1,64}$/.test(input.user), 'agentless.form.errors.user')
  const interval = parseInterval(input.interval)
  check('interval', interval !== null && interval >= MIN_INTERVAL_S && interval <= MAX_INTERVAL_S, 'agentless.form.errors.interval')
  for (const resource of RESOURCES) {
    const value = input.thresholds[resource]
    check(resource, value === '' || (value >= 1 && value <= 100), 'agentless.form.errors.threshold')
  }
  if (input.authMethod === 'key') check('credentials', !/^(ssh-|ecdsa-|sk-)/.test(key.trim()), 'agentless.form.errors.publicKey')
  return errors
}

export function useServerForm(current: Server | null, servers: () => Server[]) {
  const draftKey = `server.${current?.id ?? 'new'}`
  const initial = initialInput(current)
  const draft = readDraft<ServerInput & { version?: number }>(draftKey)
  // A draft of an earlier version of the server would undo the changes since.
  const isDraft = ref(draft !== null && (current === null || draft.version === current.version))
  const input = reactive<ServerInput>({ ...initial, ...(isDraft.value ? draft : {}) })
  const secrets = reactive<Secrets>({ password: '', key: '', passphrase: '' })
  const passwords = ref<Record<string, string>>({})

  const hasSecrets = computed(() => Object.values(secrets).some((text) => text !== '') || Object.values(passwords.value).some(Boolean))
  const inputText = (value: ServerInput) => JSON.stringify(Object.keys(initial).map((key) => value[key as keyof ServerInput]))
  const hasChanges = computed(() => inputText(input) !== inputText(initial))
  const isDirty = computed(() => hasChanges.value || hasSecrets.value)

  function keepDraft() {
    writeDraft(draftKey, hasChanges.value ? { ...input, version: current?.version } : null)
  }
  function discardDraft() {
    writeDraft(draftKey, null)
    Object.assign(input, initialInput(current))
    isDraft.value = false
  }

  /** Whether the connection takes another path, to which no stored password is sent. */
  const isMoved = computed(
    () => current !== null && (input.address !== current.address || input.port !== current.port || input.jump !== (current.jump ?? '')),
  )
  /** Whether a stored password may be used: it is bound to address, user and jump host. */
  const keepsPassword = computed(() => !isMoved.value && input.user === current?.user && current?.blocked?.cause !== 'credentials_required')
  /** Whether the stored credentials are used if the form has none. */
  const hasCredentials = computed(() => current?.auth_method === input.authMethod && (input.authMethod === 'key' || keepsPassword.value))
  /** Servers whose passwords are entered again because this server moves. */
  const dependents = computed(() => (current && isMoved.value ? passwordDependents(current.id, servers()) : []))

  const takenNames = computed(() => new Set(servers().flatMap(({ id, name }) => (id === current?.id ? [] : [name]))))
  const errors = computed(() => inputErrors(input, secrets, takenNames.value))

  const threshold = (value: number | '') => (value === '' ? null : Number(value))
  const request = computed<ServerRequest>(() => ({
    name: input.name,
    address: input.address,
    port: Number(input.port),
    user: input.user,
    credentials:
      input.authMethod === 'password'
        ? { kind: 'password', password: secrets.password || null }
        : { kind: 'key', key: secrets.key || null, passphrase: secrets.passphrase || null },
    jump: input.jump || null,
    passwords: dependentPasswords(dependents.value, passwords.value),
    tags: parseTags(input.tags),
    interval: input.interval,
    thresholds: {
      cpu: threshold(input.thresholds.cpu),
      memory: threshold(input.thresholds.memory),
      disk: threshold(input.thresholds.disk),
    },
    enabled: input.enabled,
    version: current?.version ?? null,
  }))

  return {
    ...{ input, secrets, passwords, errors, request, hasCredentials, dependents },
    ...{ isDirty, hasSecrets, hasChanges, isDraft, keepDraft, discardDraft, clearDraft: () => writeDraft(draftKey, null) },
  }
}

// Preferences that an account has in every browser: pins, columns and filters of the list of hosts. The browser keeps a copy
// for the first paint and for times without the hub. Theme and density stay in the browser: they depend on its screen.
import { api, unwrap } from './api/client'
import type { Preferences } from './api/types'
import { readStored, storage, store } from './lib/theme'

/** Stored keys with the field of the API, and whether an entry is valid there. */
const FIELDS = {
  pins: { field: 'pins', isValid: (entry: unknown) => typeof entry === 'string' && /^[0-9a-f-]{36}$/.test(entry) },
  'hosts.columns': { field: 'host_columns', isValid: (entry: unknown) => typeof entry === 'string' && entry !== '' },
  'hosts.filters': {
    field: 'host_filters',
    isValid: (entry: { name?: unknown; filter?: unknown } | null) => !!entry?.name && !!entry.filter,
  },
} as const
type Key = keyof typeof FIELDS
const KEYS = Object.keys(FIELDS) as Key[]
/** Key of the account whose preferences this browser has. */
const ACCOUNT_KEY = 'account'
/** Time after the last change before it is saved. */
const SAVE_DELAY_MS = 400

let account = ''
/** Whether the copy of this browser was compared with that of the hub: otherwise a save would replace newer values. */
let isLoaded = false
let isListening = false
let timer: ReturnType<typeof setTimeout> | undefined

function entriesOf(key: Key): unknown[] | null {
  const entries = readStored(key)
  return Array.isArray(entries) ? entries.filter((entry) => FIELDS[key].isValid(entry as never)) : null
}

/** Preferences of this browser as the API takes them. */
function local(): Preferences {
  return Object.fromEntries(KEYS.map((key) => [FIELDS[key].field, entriesOf(key)])) as unknown as Preferences
}

async function load() {
  const loaded: Preferences = await unwrap(api.GET('/api/v1/auth/preferences'))
  const owner = readStored(ACCOUNT_KEY)
  let isMissing = false
  for (const key of KEYS) {
    const value = loaded[FIELDS[key].field] ?? null
    // Values of a browser that had no account yet are those of the first one; those of another account are dropped.
    if (value === null && (owner === null || owner === account)) isMissing ||= entriesOf(key) !== null
    else if (JSON.stringify(value) !== JSON.stringify(entriesOf(key))) {
      store(key, value === null ? null : JSON.stringify(value), true)
      storage.dispatchEvent(new CustomEvent('load', { detail: key }))
    }
  }
  store(ACCOUNT_KEY, JSON.stringify(account), true)
  isLoaded = true
  if (isMissing) await save()
}

async function save() {
  await unwrap(api.PUT('/api/v1/auth/preferences', { body: local() }))
}

/** A failure is repeated with the next change or page load; until then, this browser has the change. */
async function run() {
  try {
    await (isLoaded ? save() : load())
  } catch {
    // Without the hub, every page shows that it cannot be reached.
  }
}

function onWrite(event: Event) {
  if (!KEYS.includes((event as CustomEvent<Key>).detail)) return
  clearTimeout(timer)
  timer = setTimeout(() => void run(), SAVE_DELAY_MS)
}

/** Loads the preferences of an account, and saves changes from then on. */
export async function syncPreferences(id: string) {
  if (id === account) return
  clearTimeout(timer)
  account = id
  isLoaded = false
  if (!isListening) storage.addEventListener('write', onWrite)
  isListening = true
  await run()
}

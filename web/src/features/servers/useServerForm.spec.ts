import { beforeEach, describe, expect, it } from 'vitest'
import type { Server } from '../../api/types'
import { inputErrors, parseInterval, useServerForm } from './useServerForm'

const server = {
  id: '7',
  name: 'db-1',
  address: '192.0.2.7',
  port: 22,
  user: 'watch',
  auth_method: 'password',
  jump: null,
  tags: [],
  interval: '5m',
  thresholds: { cpu: 80 },
  enabled: true,
  version: 3,
  blocked: null,
} as unknown as Server
const NO_SECRETS = { password: '', key: '', passphrase: '' }

beforeEach(() => sessionStorage.clear())

it.each([
  ['15m', 900],
  ['1h30m', 5_400],
  ['90', null],
  ['1 h', null],
])('interval %j', (text, expected) => expect(parseInterval(text)).toBe(expected))

describe('inputErrors', () => {
  const { input } = useServerForm(server, () => [server])
  const errors = (changes: object, key = '') =>
    Object.keys(inputErrors({ ...input, ...changes }, { ...NO_SECRETS, key }, new Set(['taken'])))

  it.each([
    [{}, []],
    [{ name: ' ', address: 'root@host', port: 0, user: '' }, ['name', 'address', 'port', 'user']],
    [{ name: 'taken' }, ['name']],
    [{ interval: '30s' }, ['interval']],
    [{ thresholds: { cpu: 101, memory: '', disk: 90 } }, ['cpu']],
  ])('of %j', (changes, expected) => expect(errors(changes)).toEqual(expected))

  it('names a public key', () => {
    expect(errors({ authMethod: 'key' }, 'ssh-ed25519 AAAA')).toEqual(['credentials'])
  })
})

describe('draft', () => {
  it('keeps the input without secrets', () => {
    const form = useServerForm(null, () => [])
    form.input.name = 'edge-1'
    form.secrets.key = 'secret-key'
    form.passwords.value = { 3: 'secret-password' }
    form.keepDraft()
    expect(JSON.stringify({ ...sessionStorage })).not.toContain('secret-')
    const again = useServerForm(null, () => [])
    expect([again.isDraft.value, again.input.name, again.secrets.key]).toEqual([true, 'edge-1', ''])
    again.discardDraft()
    expect(again.isDirty.value).toBe(false)
    expect(useServerForm(null, () => []).isDraft.value).toBe(false)
  })

  it('is dropped when the server was changed since', () => {
    const form = useServerForm(server, () => [server])
    form.input.user = 'other'
    form.keepDraft()
    const changed = useServerForm({ ...server, version: 4 }, () => [server])
    expect([changed.isDraft.value, changed.input.user]).toEqual([false, 'watch'])
  })
})

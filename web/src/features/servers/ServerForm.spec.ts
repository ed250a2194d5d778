import { flushPromises, mount } from '@vue/test-utils'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { nextTick } from 'vue'
import type { Server } from '../../api/types'
import ServerForm from './ServerForm.vue'

const server: Server = {
  id: '0192',
  name: 'db-1',
  address: '192.0.2.7',
  port: 2222,
  user: 'perfwatch',
  auth_method: 'password',
  jump: null,
  jump_hidden: false,
  tags: ['db'],
  interval: '5m',
  thresholds: { cpu: 80, memory: null, disk: 90 },
  enabled: true,
  version: 3,
  host_key: null,
  blocked: null,
  last: null,
  last_success_ms: null,
  next_run_ms: null,
  summary: null,
}

const requests: { method: string; path: string; body: Record<string, unknown> }[] = []
let answer: { status: number; body: unknown }

beforeEach(() => {
  requests.length = 0
  answer = { status: 200, body: server }
  vi.stubGlobal('fetch', async (request: Request) => {
    requests.push({ method: request.method, path: new URL(request.url).pathname, body: await request.json() })
    return new Response(JSON.stringify(answer.body), { status: answer.status })
  })
})
afterEach(() => {
  document.body.innerHTML = ''
  vi.unstubAllGlobals()
})

async function open(edited: Server | null, servers = [server]) {
  document.body.innerHTML = ''
  const wrapper = mount(ServerForm, { props: { server: edited, servers }, attachTo: document.body })
  await nextTick()
  return wrapper
}

const dialog = () => document.querySelector('[role=dialog]')!

async function fill(label: string, value: string) {
  const element = [...dialog().querySelectorAll('label')].find((candidate) => candidate.textContent === label)!
  const input = document.getElementById(element.htmlFor) as HTMLInputElement
  input.value = value
  input.dispatchEvent(new Event('input'))
  await nextTick()
}

async function submit() {
  dialog()
    .querySelector('form')!
    .dispatchEvent(new Event('submit', { cancelable: true }))
  await flushPromises()
}

describe('ServerForm', () => {
  it('creates a server with the default thresholds', async () => {
    const wrapper = await open(null)
    await fill('Name', 'db-2')
    await fill('Address', '192.0.2.8')
    await fill('User', 'perfwatch')
    await fill('Private key', 'a key')
    await submit()
    expect(requests).toMatchObject([{ method: 'POST', path: '/api/v1/servers' }])
    expect(requests[0]!.body).toMatchObject({
      name: 'db-2',
      port: 22,
      credentials: { kind: 'key', key: 'a key', passphrase: null },
      thresholds: { cpu: 90, memory: 95, disk: 90 },
      version: null,
    })
    expect([wrapper.emitted('saved'), wrapper.emitted('close')].map((events) => events?.length)).toEqual([1, 1])
  })

  it('keeps the stored password and disabled thresholds of an edited server', async () => {
    await open(server)
    await submit()
    expect(requests).toMatchObject([{ method: 'PUT', path: '/api/v1/servers/0192' }])
    expect(requests[0]!.body).toMatchObject({
      credentials: { kind: 'password', password: null },
      thresholds: { cpu: 80, memory: null, disk: 90 },
      version: 3,
    })
  })

  /** Finding H1: the stored password was sent to another address. */
  it('asks for the password again when the server moves', async () => {
    await open(server)
    const password = () => dialog().querySelector<HTMLInputElement>('input[type=password]')!
    expect([password().required, password().placeholder]).toEqual([false, 'unchanged'])
    await fill('Address', '192.0.2.9')
    expect([password().required, password().placeholder]).toEqual([true, ''])
  })

  /** Finding H1: moving a jump host sent the passwords behind it elsewhere. */
  it('asks for the passwords behind a jump host that moves', async () => {
    const gate: Server = { ...server, id: '1', name: 'gate', auth_method: 'key' }
    const inner: Server = { ...server, id: '2', name: 'inner', auth_method: 'key', jump: '1' }
    const behind = ['3', '4'].map((id): Server => ({ ...server, id, name: `db-${id}`, jump: '2' }))
    await open(gate, [gate, inner, ...behind, server])
    await submit()
    expect(requests.pop()!.body).toMatchObject({ passwords: {} })
    await open(gate, [gate, inner, ...behind, server])
    await fill('Port', '2200')
    await fill('Password of db-3', 'secret')
    await submit()
    expect(requests.pop()!.body).toMatchObject({ port: 2200, passwords: { 3: 'secret', 4: null } })
  })

  it('stays open with the error of the hub', async () => {
    answer = { status: 422, body: { error: { code: 'invalid_server', message: 'interval: must be at least 60s' } } }
    const wrapper = await open(server)
    await submit()
    expect(dialog().querySelector('[role=alert]')!.textContent).toBe('Interval: must be at least 60s.')
    expect(wrapper.emitted('close')).toBeUndefined()
  })
})

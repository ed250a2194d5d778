import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createMemoryHistory, createRouter } from 'vue-router'
import { getJson } from './api/http'
import { guardRoutes, may, me } from './session'

const answers: Record<string, { status: number; body: unknown }> = {}
const nobody = { status: 401, body: { error: { code: 'login_needed', message: 'log in' } } }
const admin = { id: '1', name: 'a', role: 'admin', host_tags: [], totp: false, recovery_codes: 0, has_password: true }

function start() {
  const page = { template: '<p></p>' }
  const routes = [
    { path: '/', component: page },
    { path: '/deep', component: page },
    { path: '/login', component: page, meta: { open: true } },
    { path: '/setup', component: page, meta: { open: true } },
  ]
  const router = createRouter({ history: createMemoryHistory(), routes })
  guardRoutes(router)
  return router
}

describe('session', () => {
  beforeEach(() => {
    me.value = null
    answers['/api/v1/auth/me'] = nobody
    answers['/api/v1/auth/state'] = { status: 200, body: { set_up: false, password_least: 10, single_sign_on: null } }
    vi.stubGlobal('fetch', async (path: string) => {
      const { status, body } = answers[path] ?? nobody
      return new Response(JSON.stringify(body), { status })
    })
  })
  afterEach(() => vi.unstubAllGlobals())

  it('asks for a login first, and remembers the page one wanted', async () => {
    const router = start()
    await router.push('/deep?x=1')
    await new Promise((done) => setTimeout(done, 20))
    expect(router.currentRoute.value.fullPath).toBe('/login?next=/deep?x=1')
    answers['/api/v1/auth/me'] = { status: 200, body: admin }
    await router.push('/deep')
    expect(router.currentRoute.value.path).toBe('/deep')
    expect(may('operator')).toBe(true)
  })

  it('goes to the set-up where nobody may log in yet', async () => {
    answers['/api/v1/auth/state']!.body = { set_up: true, password_least: 10, single_sign_on: null }
    const router = start()
    await router.push('/')
    expect(router.currentRoute.value.path).toBe('/setup')
  })

  it('leaves a page when the session is over, and stays when another tab has a new one', async () => {
    answers['/api/v1/auth/me'] = { status: 200, body: admin }
    const router = start()
    await router.push('/deep')
    await getJson('/api/v1/hosts').catch(() => {})
    await new Promise((done) => setTimeout(done, 20))
    expect(router.currentRoute.value.path).toBe('/deep')
    answers['/api/v1/auth/me'] = nobody
    await getJson('/api/v1/hosts').catch(() => {})
    await new Promise((done) => setTimeout(done, 20))
    expect(router.currentRoute.value.fullPath).toBe('/login?next=/deep')
  })
})

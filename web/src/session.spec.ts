import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createMemoryHistory, createRouter } from 'vue-router'
import { api, unwrap } from './api/client'
import { currentUser, guardRoutes, hasRole } from './session'

const answers: Record<string, { status: number; body: unknown }> = {}
const anonymous = { status: 401, body: { error: { code: 'authentication_required', message: 'log in' } } }
const admin = { id: '1', name: 'a', role: 'admin', host_tags: [], totp_enabled: false, recovery_codes: 0, has_password: true }

function start() {
  const page = { template: '<p></p>' }
  const routes = [
    { path: '/', component: page },
    { path: '/deep', component: page },
    { path: '/admin', component: page, meta: { access: 'admin' as const } },
    { path: '/:path(.*)*', name: 'forbidden', component: page },
    { path: '/login', component: page, meta: { access: 'public' as const } },
    { path: '/setup', component: page, meta: { access: 'public' as const } },
  ]
  const router = createRouter({ history: createMemoryHistory(), routes })
  guardRoutes(router)
  return router
}

describe('session', () => {
  beforeEach(() => {
    currentUser.value = null
    answers['/api/v1/auth/me'] = anonymous
    answers['/api/v1/auth/state'] = { status: 200, body: { setup_required: false, min_password_length: 10, sso_label: null } }
    vi.stubGlobal('fetch', async (request: Request) => {
      const { status, body } = answers[new URL(request.url).pathname] ?? anonymous
      return new Response(JSON.stringify(body), { status })
    })
  })
  afterEach(() => vi.unstubAllGlobals())

  it('redirects to login and remembers the page', async () => {
    const router = start()
    await router.push('/deep?x=1')
    await new Promise((done) => setTimeout(done, 20))
    expect(router.currentRoute.value.fullPath).toBe('/login?next=/deep?x=1')
    answers['/api/v1/auth/me'] = { status: 200, body: admin }
    await router.push('/deep')
    expect(router.currentRoute.value.path).toBe('/deep')
    expect(hasRole('operator')).toBe(true)
  })

  it('redirects to setup without users', async () => {
    answers['/api/v1/auth/state']!.body = { setup_required: true, min_password_length: 10, sso_label: null }
    const router = start()
    await router.push('/')
    expect(router.currentRoute.value.path).toBe('/setup')
  })

  it('handles session expiry and renewal by another tab', async () => {
    answers['/api/v1/auth/me'] = { status: 200, body: admin }
    const router = start()
    await router.push('/deep')
    await unwrap(api.GET('/api/v1/hosts')).catch(() => {})
    await new Promise((done) => setTimeout(done, 20))
    expect(router.currentRoute.value.path).toBe('/deep')
    answers['/api/v1/auth/me'] = anonymous
    await unwrap(api.GET('/api/v1/hosts')).catch(() => {})
    await new Promise((done) => setTimeout(done, 20))
    expect(router.currentRoute.value.fullPath).toBe('/login?next=/deep')
  })

  it('shows pages above the role of the user as forbidden', async () => {
    answers['/api/v1/auth/me'] = { status: 200, body: { ...admin, role: 'operator' } }
    const router = start()
    await router.push('/admin?tab=2')
    expect(router.currentRoute.value.name).toBe('forbidden')
    expect(router.currentRoute.value.fullPath).toBe('/admin?tab=2')
    currentUser.value = null
    answers['/api/v1/auth/me'] = { status: 200, body: admin }
    await router.push('/deep')
    await router.push('/admin?tab=2')
    expect(router.currentRoute.value.name).toBeUndefined()
  })

  it('rejects error answers with their code', async () => {
    answers['/api/v1/hosts'] = { status: 409, body: { error: { code: 'taken', message: 'the name is taken' } } }
    const failure = await unwrap(api.GET('/api/v1/hosts')).catch((error: unknown) => error)
    expect(failure).toMatchObject({ status: 409, code: 'taken', message: 'the name is taken' })
  })
})

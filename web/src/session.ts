// Who is logged in, for all pages: what they may see, and what to do when that ends.
import { shallowRef } from 'vue'
import type { Router } from 'vue-router'
import { ApiError, getJson, send, whenEnded } from './api/http'
import { closeLive } from './api/live'
import type { AuthState, Me, Role } from './api/types'

export const me = shallowRef<Me | null>(null)

const ORDER: Role[] = ['viewer', 'operator', 'admin']

/** Whether who is logged in has this role at least. */
export function may(role: Role): boolean {
  return me.value !== null && ORDER.indexOf(me.value.role) >= ORDER.indexOf(role)
}

/** Asks the hub who this browser is. */
async function look(): Promise<Me | null> {
  try {
    me.value = await getJson<Me>('/api/v1/auth/me')
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error
    me.value = null
  }
  return me.value
}

export async function logOut(router: Router) {
  await send('POST', '/api/v1/auth/logout')
  me.value = null
  closeLive()
  await router.push('/login')
}

/** Pages ask for a login first; a hub without accounts for the first of them. */
export function guardRoutes(router: Router) {
  router.beforeEach(async (to) => {
    if (to.meta.open || me.value) return true
    try {
      if (await look()) return true
      const state = await getJson<AuthState>('/api/v1/auth/state')
      return state.set_up ? '/setup' : { path: '/login', query: to.fullPath === '/' ? {} : { next: to.fullPath } }
    } catch {
      // The hub is away: the page says so itself and tries again.
      return true
    }
  })
  whenEnded(() => {
    const page = router.currentRoute.value
    if (page.meta.open) return
    me.value = null
    closeLive()
    void router.push({ path: '/login', query: { next: page.fullPath } })
  })
}

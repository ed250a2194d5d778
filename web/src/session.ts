// Who is logged in, for all pages: what they may see, and what to do when that ends.
import { shallowRef } from 'vue'
import type { Router } from 'vue-router'
import { ApiError, getJson, getMe, send, whenEnded, words } from './api/http'
import { closeLive } from './api/live'
import type { AuthState, Me, Role } from './api/types'

export const me = shallowRef<Me | null>(null)

let asking = false
const ORDER: Role[] = ['viewer', 'operator', 'admin']

/** Whether who is logged in has this role at least. */
export function may(role: Role): boolean {
  return me.value !== null && ORDER.indexOf(me.value.role) >= ORDER.indexOf(role)
}

/** Asks the hub who this browser is. */
async function look(): Promise<Me | null> {
  try {
    me.value = await getMe()
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error
    me.value = null
  }
  return me.value
}

/** What went wrong, where the hub could not be told. */
export async function logOut(router: Router): Promise<string> {
  try {
    await send('POST', '/api/v1/auth/logout')
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) return words(error)
  }
  me.value = null
  closeLive()
  await router.push('/login')
  return ''
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
  whenEnded(async () => {
    const page = router.currentRoute.value
    // Before the first page, the guard of the routes asks itself.
    if (page.matched.length === 0 || page.meta.open || asking) return
    // Another tab of this browser may have got a session anew.
    asking = true
    const still = await look().catch(() => me.value)
    asking = false
    if (still) return
    closeLive()
    await router.push({ path: '/login', query: { next: page.fullPath } })
  })
}

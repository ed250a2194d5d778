// The logged-in user, and the navigation guard that enforces access to pages.
import { shallowRef } from 'vue'
import type { RouteLocationNormalized, RouteLocationRaw, Router } from 'vue-router'
import { api, sessionApi, unwrap } from './api/client'
import { ApiError, errorMessage, onSessionEnded } from './api/errors'
import { closeLive } from './api/live'
import { queryClient } from './api/query'
import type { CurrentUser, Role } from './api/types'

export const currentUser = shallowRef<CurrentUser | null>(null)

/** Roles in ascending order of rights. */
const ROLES: Role[] = ['viewer', 'operator', 'admin']

/** Whether the logged-in user has at least this role. */
export function hasRole(role: Role): boolean {
  return currentUser.value !== null && ROLES.indexOf(currentUser.value.role) >= ROLES.indexOf(role)
}

/** Reads the user of the browser's session; null without a session. Rejects if the hub does not answer. */
export async function fetchCurrentUser(): Promise<CurrentUser | null> {
  try {
    currentUser.value = await unwrap(sessionApi.GET('/api/v1/auth/me'))
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error
    currentUser.value = null
  }
  return currentUser.value
}

/** Drops everything that was read with the old session. */
function clearSession() {
  currentUser.value = null
  closeLive()
  queryClient.clear()
}

/** Logs out and opens the login page. Resolves to an error text if the hub could not be reached, else to ''. */
export async function logOut(router: Router): Promise<string> {
  try {
    await unwrap(api.POST('/api/v1/auth/logout'))
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) return errorMessage(error)
  }
  clearSession()
  await router.push('/login')
  return ''
}

/** Login page that returns to `target`, or the setup page if the hub has no account yet. */
async function loginPage(target: RouteLocationNormalized): Promise<RouteLocationRaw> {
  const options = await unwrap(api.GET('/api/v1/auth/state'))
  return options.setup_required ? '/setup' : { path: '/login', query: target.fullPath === '/' ? {} : { next: target.fullPath } }
}

/** Enforces `meta.access` of routes and opens the login page when the session ends. */
export function guardRoutes(router: Router) {
  router.beforeEach(async (to) => {
    const access = to.meta.access ?? 'viewer'
    if (access === 'public') return true
    try {
      if (!currentUser.value && !(await fetchCurrentUser())) return await loginPage(to)
    } catch {
      // The hub does not answer: the page shows that and retries.
      return true
    }
    if (hasRole(access)) return true
    // The address stays, so that a reload after a change of roles opens the page.
    return { name: 'forbidden', params: { path: to.path.slice(1).split('/') }, query: to.query, hash: to.hash }
  })

  let checking = false
  onSessionEnded(async () => {
    const page = router.currentRoute.value
    // Before the first page, the guard checks the session.
    if (page.matched.length === 0 || page.meta.access === 'public' || checking) return
    // Another tab of this browser may have logged in again.
    checking = true
    const user = await fetchCurrentUser().catch(() => currentUser.value)
    checking = false
    if (user) return
    clearSession()
    await router.push({ path: '/login', query: { next: page.fullPath } })
  })
}

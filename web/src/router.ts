// Routes with their access, title and link. Pages load on first use.
import type { Component } from 'vue'
import { createRouter, createWebHistory, type RouteRecordRaw } from 'vue-router'
import type { Role } from './api/types'
import { type PlainMessageKey, t } from './i18n'
import { basePath } from './lib/base'
import { setTitle } from './lib/title'
import { guardRoutes } from './session'

declare module 'vue-router' {
  interface RouteMeta {
    /** Lowest role that may open the page, or `public` for pages without a session. Default: viewer. */
    access?: Role | 'public'
    /** Title of the browser tab. Pages of an entity set its name themselves. */
    title?: PlainMessageKey
    /** Text of the link in the layout of the page. Default: title. */
    label?: PlainMessageKey
    /** Icon of the link in the layout of the page. */
    icon?: Component
    /** Heading above the link in the layout of the page. */
    section?: PlainMessageKey
  }
}

const alertPages: RouteRecordRaw[] = [
  {
    path: '',
    component: () => import('./features/alerts/ActiveIncidentsPage.vue'),
    meta: { title: 'alerts.title', label: 'alerts.tabs.active' },
  },
  {
    path: 'history',
    component: () => import('./features/alerts/IncidentHistoryPage.vue'),
    meta: { title: 'alerts.history.title', label: 'alerts.tabs.history' },
  },
  { path: 'rules', component: () => import('./features/alerts/RulesPage.vue'), meta: { title: 'alerts.rules.title' } },
  { path: 'silences', component: () => import('./features/alerts/SilencesPage.vue'), meta: { title: 'alerts.silences.title' } },
  {
    path: 'channels',
    component: () => import('./features/alerts/ChannelsPage.vue'),
    meta: { access: 'operator', title: 'alerts.channels.title' },
  },
]

const hostPages: RouteRecordRaw[] = [
  { path: '', name: 'host', component: () => import('./features/host/HostDashboard.vue') },
  { path: 'processes', component: () => import('./features/host/HostProcesses.vue') },
  { path: 'events', component: () => import('./features/host/HostEvents.vue') },
  { path: 'connection', component: () => import('./features/host/HostConnection.vue') },
  { path: 'details', component: () => import('./features/host/HostDetails.vue') },
]

const settingsPages: RouteRecordRaw[] = [
  {
    path: 'general',
    component: () => import('./features/settings/GeneralPage.vue'),
    meta: { access: 'admin', title: 'settings.pages.general', section: 'settings.sections.hub' },
  },
  {
    path: 'retention',
    component: () => import('./features/settings/RetentionPage.vue'),
    meta: { access: 'admin', title: 'settings.pages.retention', section: 'settings.sections.hub' },
  },
  {
    path: 'collection',
    component: () => import('./features/settings/CollectionPage.vue'),
    meta: { access: 'admin', title: 'settings.pages.collection', section: 'settings.sections.hub' },
  },
  {
    path: 'notifications',
    component: () => import('./features/settings/NotificationsPage.vue'),
    meta: { access: 'admin', title: 'settings.pages.notifications', section: 'settings.sections.hub' },
  },
  {
    path: 'agents',
    component: () => import('./features/settings/AgentsPage.vue'),
    meta: { access: 'operator', title: 'settings.pages.agents', section: 'settings.sections.hub' },
  },
  {
    path: 'status-pages',
    component: () => import('./features/settings/StatusPagesPage.vue'),
    meta: { access: 'operator', title: 'settings.pages.statusPages', section: 'settings.sections.hub' },
  },
  {
    path: 'users',
    component: () => import('./features/settings/UsersPage.vue'),
    meta: { access: 'admin', title: 'settings.pages.users', section: 'settings.sections.access' },
  },
  {
    path: 'security',
    component: () => import('./features/settings/SecurityPage.vue'),
    meta: { access: 'admin', title: 'settings.pages.security', section: 'settings.sections.access' },
  },
  {
    path: 'sso',
    component: () => import('./features/settings/SsoPage.vue'),
    meta: { access: 'admin', title: 'settings.pages.sso', section: 'settings.sections.access' },
  },
  {
    path: 'audit',
    component: () => import('./features/settings/AuditPage.vue'),
    meta: { access: 'admin', title: 'settings.pages.audit', section: 'settings.sections.access' },
  },
  {
    path: 'account',
    component: () => import('./features/settings/AccountPage.vue'),
    meta: { title: 'settings.pages.account', section: 'settings.sections.you' },
  },
  {
    path: 'tokens',
    component: () => import('./features/settings/TokensPage.vue'),
    meta: { title: 'settings.pages.tokens', section: 'settings.sections.you' },
  },
  {
    path: 'appearance',
    component: () => import('./features/settings/AppearancePage.vue'),
    meta: { title: 'settings.pages.appearance', section: 'settings.sections.you' },
  },
]

export const routes: RouteRecordRaw[] = [
  { path: '/', name: 'overview', component: () => import('./features/overview/OverviewPage.vue'), meta: { title: 'overview.title' } },
  { path: '/hosts', name: 'hosts', component: () => import('./features/hosts/HostsPage.vue'), meta: { title: 'hosts.title' } },
  { path: '/hosts/:id', component: () => import('./features/host/HostLayout.vue'), props: true, children: hostPages },
  { path: '/login', component: () => import('./features/auth/LoginPage.vue'), meta: { access: 'public', title: 'auth.login.title' } },
  { path: '/setup', component: () => import('./features/auth/SetupPage.vue'), meta: { access: 'public', title: 'auth.setup.title' } },
  {
    path: '/alerts/incidents/:id',
    component: () => import('./features/alerts/IncidentPage.vue'),
    props: true,
    meta: { title: 'alerts.incident.title' },
  },
  {
    path: '/alerts/rules/:id',
    component: () => import('./features/alerts/RulePage.vue'),
    props: true,
    meta: { title: 'alerts.rule.title' },
  },
  { path: '/alerts', component: () => import('./features/alerts/AlertsPage.vue'), children: alertPages },
  {
    path: '/agentless',
    component: () => import('./features/servers/ServersLayout.vue'),
    children: [
      {
        path: '',
        component: () => import('./features/servers/ServersPage.vue'),
        meta: { title: 'servers.title', label: 'servers.tabs.hosts' },
      },
      {
        path: 'queue',
        component: () => import('./features/servers/QueuePage.vue'),
        meta: { title: 'servers.queue.title', label: 'servers.tabs.queue' },
      },
    ],
  },
  {
    path: '/explore/:view?',
    name: 'explore',
    component: () => import('./features/explore/ExplorePage.vue'),
    props: true,
    meta: { title: 'shell.explore' },
  },
  { path: '/capsules', component: () => import('./features/capsules/CapsulesPage.vue'), meta: { title: 'shell.capsules' } },
  { path: '/hub', component: () => import('./features/hub/HubPage.vue'), meta: { title: 'shell.hub' } },
  // Addresses of links in older notifications and bookmarks.
  { path: '/servers', redirect: '/agentless' },
  { path: '/servers/queue', redirect: '/agentless/queue' },
  { path: '/servers/:id', redirect: ({ params }) => `/hosts/${String(params.id)}/connection` },
  {
    path: '/settings',
    component: () => import('./features/settings/SettingsPage.vue'),
    redirect: '/settings/account',
    children: settingsPages,
  },
  // Gallery of components; builds leave it out.
  ...(import.meta.env.DEV
    ? [{ path: '/dev', component: () => import('./features/dev/GalleryPage.vue'), meta: { access: 'public' } } as const]
    : []),
  {
    path: '/:path(.*)*',
    name: 'notFound',
    component: () => import('./components/UnavailablePage.vue'),
    meta: { title: 'common.notFound.title' },
  },
  // Only reached by name (session.ts): an address matches the route above.
  {
    path: '/:path(.*)*',
    name: 'forbidden',
    component: () => import('./components/UnavailablePage.vue'),
    props: { forbidden: true },
    meta: { title: 'common.forbidden.title' },
  },
]

export const router = createRouter({
  history: createWebHistory(basePath),
  routes,
  scrollBehavior: (to, from, saved) => saved ?? (to.path === from.path ? undefined : { top: 0 }),
})
router.afterEach((to) => setTitle(to.meta.title && t(to.meta.title)))
guardRoutes(router)

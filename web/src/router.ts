// The pages and their addresses.
import { createRouter, createWebHistory } from 'vue-router'
import LoginPage from './features/enter/LoginPage.vue'
import SetUpPage from './features/enter/SetUpPage.vue'
import HostPage from './features/host/HostPage.vue'
import HostsPage from './features/hosts/HostsPage.vue'
import { guardRoutes } from './session'

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    { path: '/', name: 'hosts', component: HostsPage },
    { path: '/hosts/:id', name: 'host', component: HostPage, props: true },
    { path: '/login', component: LoginPage, meta: { open: true } },
    { path: '/setup', component: SetUpPage, meta: { open: true } },
    { path: '/alerts/incidents/:id', component: () => import('./features/alerts/IncidentPage.vue'), props: true },
    { path: '/alerts/rules/:id', component: () => import('./features/alerts/RulePage.vue'), props: true },
    {
      path: '/alerts',
      component: () => import('./features/alerts/AlertsPage.vue'),
      children: [
        { path: '', component: () => import('./features/alerts/ActivePage.vue') },
        { path: 'history', component: () => import('./features/alerts/HistoryPage.vue') },
        { path: 'rules', component: () => import('./features/alerts/RulesPage.vue') },
        { path: 'silences', component: () => import('./features/alerts/SilencesPage.vue') },
        { path: 'channels', component: () => import('./features/alerts/ChannelsPage.vue') },
      ],
    },
    { path: '/servers/:id', component: () => import('./features/servers/ServerPage.vue'), props: true },
    {
      path: '/servers',
      component: () => import('./features/servers/ServersFrame.vue'),
      children: [
        { path: '', component: () => import('./features/servers/ServersPage.vue') },
        { path: 'queue', component: () => import('./features/servers/QueuePage.vue') },
      ],
    },
    {
      path: '/settings',
      component: () => import('./features/settings/SettingsPage.vue'),
      redirect: '/settings/account',
      children: [
        { path: 'account', component: () => import('./features/settings/AccountPage.vue') },
        { path: 'tokens', component: () => import('./features/settings/TokensPage.vue') },
        { path: 'agents', component: () => import('./features/settings/AgentsPage.vue') },
        { path: 'users', component: () => import('./features/settings/UsersPage.vue') },
        { path: 'audit', component: () => import('./features/settings/AuditPage.vue') },
      ],
    },
    { path: '/:rest(.*)', redirect: '/' },
  ],
})
guardRoutes(router)

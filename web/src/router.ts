// The pages and their addresses.
import { createRouter, createWebHistory } from 'vue-router'
import HostPage from './features/host/HostPage.vue'
import HostsPage from './features/hosts/HostsPage.vue'

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    { path: '/', name: 'hosts', component: HostsPage },
    { path: '/hosts/:id', name: 'host', component: HostPage, props: true },
    { path: '/:rest(.*)', redirect: '/' },
  ],
})

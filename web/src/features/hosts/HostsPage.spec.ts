import { VueQueryPlugin } from '@tanstack/vue-query'
import { flushPromises, mount } from '@vue/test-utils'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createMemoryHistory, createRouter } from 'vue-router'
import { queryClient } from '../../api/query'
import { currentUser } from '../../session'
import HostsPage from './HostsPage.vue'

const NOW_MS = 1_763_719_200_000
const host = (id: string, status: string, seconds: number) => ({
  id,
  name: `${id}-name`,
  status,
  tags: ['web'],
  facts: null,
  clock_skew_ms: null,
  sender_conflict_ms: null,
  collection_method: 'agent',
  first_seen_ms: 0,
  interval_ms: 2_000,
  last_seen_ms: NOW_MS - seconds * 1000,
  last_snapshot_ms: NOW_MS,
})
const alert = (host: string, severity: string, resolved_ms: number | null = null) => ({ host, severity, resolved_ms })
let hosts: object[] = []
const incidents = [{ alerts: [alert('a', 'warning'), alert('a', 'critical'), alert('a', 'info'), alert('b', 'info', 5)] }]

async function start() {
  const page = { template: '<p></p>' }
  const router = createRouter({ history: createMemoryHistory(), routes: [{ path: '/:path(.*)*', component: page }] })
  await router.push('/')
  const wrapper = mount(HostsPage, {
    global: { plugins: [router, [VueQueryPlugin, { queryClient }]], stubs: { TopBar: true } },
  })
  await flushPromises()
  await vi.waitFor(() => expect(wrapper.find('.skeleton').exists()).toBe(false))
  return { wrapper, router }
}

describe('HostsPage', () => {
  beforeEach(() => {
    currentUser.value = { role: 'operator' } as any
    vi.stubGlobal('fetch', async (request: Request) => {
      const isHosts = new URL(request.url).pathname === '/api/v1/hosts'
      return Response.json(isHosts ? { hosts, total: hosts.length, next: null, now_ms: NOW_MS } : { incidents, now_ms: NOW_MS })
    })
  })
  afterEach(() => {
    currentUser.value = null
    queryClient.clear()
    vi.unstubAllGlobals()
  })

  it('lists state, last snapshot and firing alerts', async () => {
    hosts = [host('a', 'online', 1), host('b', 'no_data', 90)]
    const { wrapper } = await start()
    const [first, second] = wrapper.findAll('tbody tr').map((row) => row.text())
    expect(first).toContain('a-name')
    expect(first).toContain('Online')
    expect(first).toContain('1 s ago')
    expect(first).not.toContain('Remove…')
    expect(second).toContain('No data')
    expect(second).toContain('1 min 30 s ago')
    expect(second).toContain('Remove…')
    await vi.waitFor(() => expect(wrapper.find('.alarms').text()).toBe('3 alerts'))
    expect(wrapper.find('.alarms').classes()).toContain('critical')
    expect(wrapper.findAll('.alarms')).toHaveLength(1)
    wrapper.unmount()
  })

  it('without hosts, links to the ways to add one', async () => {
    hosts = []
    const { wrapper } = await start()
    expect(wrapper.find('h2').text()).toBe('No hosts yet')
    const links = wrapper.findAll('.empty-state a').map((link) => [link.text(), link.attributes('href')])
    expect(links).toEqual([
      ['Add a host with an agent', '/settings/agents'],
      ['collect over SSH', '/agentless'],
    ])
    wrapper.unmount()
  })
})

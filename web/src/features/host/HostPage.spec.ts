import { VueQueryPlugin } from '@tanstack/vue-query'
import { flushPromises, mount } from '@vue/test-utils'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createMemoryHistory, createRouter } from 'vue-router'
import { closeLive } from '../../api/live'
import { queryClient } from '../../api/query'
import HostConnection from './HostConnection.vue'
import HostDashboard from './HostDashboard.vue'
import HostLayout from './HostLayout.vue'

const NOW_MS = 1_763_719_200_000
const HOST = {
  id: 'a',
  name: 'web-1',
  status: 'online',
  tags: [],
  facts: null,
  clock_skew_ms: -5_000,
  sender_conflict_ms: null,
  collection_method: 'agent',
  first_seen_ms: 0,
  interval_ms: 2_000,
  last_seen_ms: NOW_MS - 3_600_000,
  last_snapshot_ms: NOW_MS - 3_600_000,
}
const STORAGE = { raw_retention_s: 86_400, minute_retention_s: 7 * 86_400, hour_retention_s: 30 * 86_400 }
const SYSTEM = { version: '1.0', uptime_s: 60, memory_bytes: 1024 ** 2, hosts: 1, now_ms: NOW_MS, storage: STORAGE }
const ALERT = { id: 'x', host: 'a', severity: 'warning', resolved_ms: null, rule_name: 'High CPU usage', summary: 'cpu.usage is 97 %' }

const AGENT = { id: 'g', host: 'a', revoked_ms: null, address: '127.0.0.1', version: '0.1.0', created_ms: 0, last_seen_ms: NOW_MS }
const BESIDE = { ...HOST, id: 'b', name: 'web-2', status: 'no_data', last_snapshot_ms: NOW_MS - 3_600_000 + 5_000 }

const LAST = { cause: 'unreachable', error: 'Connection refused', finished_ms: NOW_MS, duration_ms: 1 }
const SERVER = { id: 'a', name: 'web-1', enabled: true, blocked: null, last: LAST }

let host: object
let status = 200

const CHARTS = { TimeChart: true, CoreHeatmap: true, RecorderTrack: true }
const PARTS = { TopBar: { template: '<div><slot></slot><slot name="tools"></slot></div>' } }

const TABS = [
  { path: '', component: HostDashboard },
  { path: 'connection', component: HostConnection },
]

async function start(url = '/hosts/a') {
  const routes = [
    { path: '/hosts/:id', component: HostLayout, props: true, children: TABS },
    { path: '/:path(.*)*', component: { template: '<p></p>' } },
  ]
  const router = createRouter({ history: createMemoryHistory(), routes })
  await router.push(url)
  const plugins = [router, [VueQueryPlugin, { queryClient }]] as any
  const wrapper = mount({ template: '<router-view />' }, { global: { plugins, stubs: { ...CHARTS, ...PARTS } }, attachTo: document.body })
  await flushPromises()
  const query = () => router.currentRoute.value.query
  const press = async (key: string) => {
    document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }))
    await flushPromises()
  }
  return { wrapper, query, press }
}

class IdleSocket {
  static OPEN = 1
  readyState = 0
  send() {}
  close() {}
}

describe('HostPage', () => {
  beforeEach(() => {
    host = HOST
    status = 200
    vi.stubGlobal('WebSocket', IdleSocket)
    vi.stubGlobal('fetch', async (request: Request) => {
      const { pathname } = new URL(request.url)
      if (pathname === '/api/v1/hosts') return Response.json({ hosts: [host, BESIDE], total: 2, next: null, now_ms: NOW_MS })
      if (pathname === '/api/v1/servers') return Response.json({ servers: [SERVER], now_ms: NOW_MS })
      if (pathname === '/api/v1/agents') return Response.json({ agents: [AGENT], now_ms: NOW_MS })
      if (pathname === '/api/v1/system') return Response.json(SYSTEM)
      if (pathname === '/api/v1/incidents') return Response.json({ incidents: [{ id: 'i', alerts: [ALERT] }], now_ms: NOW_MS })
      if (pathname.endsWith('/events')) return Response.json({ events: [], is_truncated: false })
      if (pathname.endsWith('/alerts')) return Response.json({ alerts: [] })
      if (pathname.endsWith('/series')) {
        return Response.json({ from_ms: 0, to_ms: 1, step_ms: 0, tier: 'raw', host_id: 'a', t: [], gaps: [], series: [] })
      }
      if (pathname !== '/api/v1/hosts/a') return Response.json({ error: { code: 'not_found', message: 'no snapshot' } }, { status: 404 })
      return Response.json(status === 200 ? host : { error: { code: 'not_found', message: 'unknown host' } }, { status })
    })
  })
  afterEach(() => {
    closeLive()
    queryClient.clear()
    document.body.innerHTML = ''
    vi.unstubAllGlobals()
  })

  it('shows name, alerts and clock skew', async () => {
    const { wrapper } = await start()
    await vi.waitFor(() => expect(wrapper.find('.alarm').text()).toContain('High CPU usage'))
    expect(wrapper.find('h1').text()).toBe('web-1')
    expect(document.title).toBe('web-1 · PerfWatch')
    expect(wrapper.text()).toContain("This host's clock is 5 s behind the hub's.")
    wrapper.unmount()
  })

  it('unknown host links to the list', async () => {
    status = 404
    const { wrapper } = await start()
    await vi.waitFor(() => expect(wrapper.find('h1').text()).toBe('Host not found'))
    expect(wrapper.find('.empty-state a').attributes('href')).toBe('/')
    wrapper.unmount()
  })

  it('host without data offers its last hour', async () => {
    host = { ...HOST, status: 'no_data' }
    const { wrapper, query } = await start()
    await vi.waitFor(() => expect(wrapper.find('h2').text()).toBe('No data from web-1 for 1 h'))
    await wrapper.find('.empty-state button').trigger('click')
    await flushPromises()
    expect([query().from, query().to]).toEqual([String(NOW_MS - 7_200_000 + 1_000), String(NOW_MS - 3_600_000 + 1_000)])
    expect(wrapper.find('h2').text()).toBe('Not recorded')
    expect(wrapper.text()).toContain('(raw 1 d, 1-minute 7 d, 1-hour 30 d)')
    wrapper.unmount()
  })

  it('host without data says since when, and what to check', async () => {
    host = { ...HOST, status: 'no_data' }
    const { wrapper } = await start()
    await vi.waitFor(() => expect(wrapper.find('.banner').text()).toContain('No data since '))
    expect(wrapper.find('.banner a').attributes('href')).toBe('/hosts/a/connection')
    wrapper.unmount()

    const connection = await start('/hosts/a/connection')
    await vi.waitFor(() => expect(connection.wrapper.find('table .badge').text()).toBe('No data'))
    expect(connection.wrapper.find('.banner a').exists()).toBe(false)
    expect(connection.wrapper.text()).toContain('systemctl status perfwatch-agent')
    expect(connection.wrapper.text()).toContain('Without data since about the same time: web-2.')
    connection.wrapper.unmount()
  })

  it('agent of a host that sends is active', async () => {
    const { wrapper } = await start('/hosts/a/connection')
    await vi.waitFor(() => expect(wrapper.find('table .badge').text()).toBe('Active'))
    expect(wrapper.text()).not.toContain('systemctl')
    wrapper.unmount()
  })

  it('agentless host opens with one day, unless the URL has a range', async () => {
    host = { ...HOST, collection_method: 'ssh', interval_ms: 60_000 }
    const first = await start()
    await vi.waitFor(() => expect(first.query()).toEqual({ range: '24h' }))
    expect(first.wrapper.text()).toContain('Collected over SSH every 1 min; every 5 s while this page is live.')
    first.wrapper.unmount()
    const second = await start('/hosts/a?range=1h')
    expect(second.query()).toEqual({ range: '1h' })
    second.wrapper.unmount()
  })

  it('agentless host whose collection fails is not shown as healthy', async () => {
    host = { ...HOST, collection_method: 'ssh', interval_ms: 900_000 }
    const { wrapper } = await start('/hosts/a?range=1h')
    await vi.waitFor(() => expect(wrapper.find('.banner').text()).toContain('stage Connect: Connection refused'))
    expect(wrapper.find('.page-head').text()).toContain('Failing')
    wrapper.unmount()
  })

  it('shortcuts shift the range, go live and open the custom range', async () => {
    const { wrapper, query, press } = await start('/hosts/a?from=1763715600000&to=1763719200000')
    await press('[')
    expect(query().from).toBe('1763713800000')
    await press(']')
    expect(query().from).toBe('1763715600000')
    await press('l')
    expect(query()).toEqual({})
    await press('c')
    await vi.waitFor(() => expect(document.querySelector('[role=dialog]')?.textContent).toContain('Time range'))
    wrapper.unmount()
  })
})

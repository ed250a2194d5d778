import { VueQueryPlugin } from '@tanstack/vue-query'
import { flushPromises, mount } from '@vue/test-utils'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createMemoryHistory, createRouter } from 'vue-router'
import { queryClient } from '../../api/query'
import { pins } from '../../lib/pins'
import { currentUser } from '../../session'
import HostsPage from './HostsPage.vue'
import { resetColumns, showColumns } from './hostColumns'
import { deleteFilter, saveFilter, savedFilters } from './savedFilters'

const NAMES = ['db-1', 'web-1', 'web-2']
const column = <T>(value: T) => NAMES.map(() => value)
let count = 3

const answer = () => ({
  now_ms: 100_000,
  revision: '1',
  hosts: NAMES.slice(0, count).map((name) => ({
    id: name,
    name,
    tags: ['env=prod'],
    collection_method: 'agent',
    cores: 4,
    os: 'Debian 12',
  })),
  values: {
    status: column('online'),
    last_seen_ms: column(99_000),
    ...{ cpu: [95, 10, 20], memory: column(50), disk: column(30), disk_mount: column('/'), rx: column(5), tx: column(7) },
    ...{ load: column(1), pressure: column(0), uptime_s: column(3_600), critical: [0, 1, 0], warning: column(0) },
  },
  totals: { hosts: count },
  top_processes: [],
  filling: [],
})
const requests: string[] = []

async function start(query = '') {
  const page = { template: '<p></p>' }
  const router = createRouter({ history: createMemoryHistory(), routes: [{ path: '/:path(.*)*', component: page }] })
  await router.push(`/hosts${query}`)
  const wrapper = mount(HostsPage, {
    attachTo: document.body,
    global: { plugins: [router, [VueQueryPlugin, { queryClient }]], stubs: { TopBar: true } },
  })
  await flushPromises()
  await vi.waitFor(() => expect(wrapper.find('.skeleton').exists()).toBe(false))
  return { wrapper, router }
}

beforeEach(() => {
  count = 3
  requests.length = 0
  localStorage.clear()
  resetColumns()
  currentUser.value = { role: 'operator', host_tags: [] } as any
  vi.stubGlobal('fetch', async (request: Request) => {
    const { pathname } = new URL(request.url)
    requests.push(`${request.method} ${pathname} ${request.method === 'GET' ? '' : await request.clone().text()}`.trim())
    return Response.json(pathname === '/api/v1/overview' ? answer() : {})
  })
})
afterEach(() => {
  currentUser.value = null
  pins.value = []
  queryClient.clear()
  document.body.innerHTML = ''
  vi.unstubAllGlobals()
})

describe('HostsPage', () => {
  it('shows live values, and columns that were chosen', async () => {
    showColumns(['cpu', 'tags'])
    const { wrapper } = await start('?group=none&sort=name-asc')
    expect(wrapper.findAll('tr[data-host]').map((row) => row.find('a.host').text())).toEqual(NAMES)
    expect(wrapper.find('tr[data-host]').text()).toContain('95.0%')
    expect(wrapper.find('td.extra').text()).toBe('env=prod')
    expect(wrapper.find('td.memory').exists()).toBe(false)
    expect(wrapper.text()).toContain('3 of 3 hosts')
    wrapper.unmount()
  })

  it('the words of the filter are chips that can be removed', async () => {
    const { wrapper, router } = await start('?group=none&filter=web+-cpu%3E15')
    expect(wrapper.findAll('.chip').map((chip) => chip.text())).toEqual(['web', '-cpu>15'])
    expect(wrapper.findAll('tr[data-host]')).toHaveLength(1)
    await wrapper.find('.chip.negated button').trigger('click')
    await vi.waitFor(() => expect(router.currentRoute.value.query.filter).toBe('web'))
    expect(wrapper.findAll('tr[data-host]')).toHaveLength(2)
    wrapper.unmount()
  })

  it('changes the tags of selected hosts', async () => {
    const { wrapper } = await start('?group=none&sort=name-asc')
    await wrapper.find('tr[data-host="web-2"] input[type=checkbox]').setValue(true)
    await wrapper
      .findAll('.selection button')
      .find((button) => button.text() === 'Tags…')!
      .trigger('click')
    await flushPromises()
    const input = document.querySelector<HTMLInputElement>('[role=dialog] input:not([type=checkbox])')!
    input.value = 'role=web'
    input.dispatchEvent(new Event('input'))
    await flushPromises()
    document.querySelector('[role=dialog] form')!.dispatchEvent(new Event('submit', { cancelable: true }))
    await vi.waitFor(() => expect(requests).toContain('PATCH /api/v1/hosts {"ids":["web-2"],"add_tags":["role=web"],"remove_tags":[]}'))
    wrapper.unmount()
  })

  it('compares two selected hosts and opens them in Explore', async () => {
    const { wrapper } = await start('?group=none&sort=name-asc')
    const links = () => wrapper.findAll('.selection a').map((link) => [link.text(), decodeURIComponent(link.attributes('href')!)])
    const select = (name: string) => wrapper.find(`tr[data-host="${name}"] input[type=checkbox]`).setValue(true)
    await select('db-1')
    expect(links().map(([text]) => text)).toEqual(['Open in Explore'])
    await select('web-2')
    expect(links()[0]).toEqual(['Compare', '/hosts/db-1?compare=web-2'])
    expect(links()[1]![1]).toContain('"hosts":{"hosts":["db-1","web-2"]}')
    await select('web-1')
    expect(links().map(([text]) => text)).toEqual(['Open in Explore'])
    wrapper.unmount()
  })

  it('the badge of a host opens its alerts', async () => {
    const { wrapper } = await start('?group=none&sort=name-asc')
    expect(wrapper.findAll('a.badges').map((link) => link.attributes('href'))).toEqual(['/alerts?filter=web-1'])
    wrapper.unmount()
  })

  it('pins a host', async () => {
    const { wrapper } = await start('?group=none&sort=name-asc')
    await wrapper.find('tr[data-host="db-1"] .pin').trigger('click')
    expect([pins.value, localStorage.getItem('perfwatch.pins')]).toEqual([['db-1'], '["db-1"]'])
    wrapper.unmount()
  })

  it('without hosts, links to the ways to add one', async () => {
    count = 0
    const { wrapper } = await start()
    expect(wrapper.find('h2').text()).toBe('No hosts yet')
    const links = wrapper.findAll('.empty-state a').map((link) => [link.text(), link.attributes('href')])
    expect(links).toEqual([
      ['Add a host with an agent', '/settings/agents'],
      ['collect over SSH', '/agentless?drawer=add'],
    ])
    wrapper.unmount()
  })
})

it('saved filters are sorted and replaced by name', () => {
  saveFilter('web', 'tag:web')
  saveFilter('busy', 'cpu>80')
  saveFilter('web', 'tag:role=web')
  expect(savedFilters.value).toEqual([
    { name: 'busy', filter: 'cpu>80' },
    { name: 'web', filter: 'tag:role=web' },
  ])
  deleteFilter('busy')
  expect(JSON.parse(localStorage.getItem('perfwatch.hosts.filters')!)).toEqual([{ name: 'web', filter: 'tag:role=web' }])
})

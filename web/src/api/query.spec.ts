import { VueQueryPlugin } from '@tanstack/vue-query'
import { flushPromises, mount } from '@vue/test-utils'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { defineComponent, ref } from 'vue'
import { invalidateQueries, queryClient, useApiPages, useApiQuery } from './query'

const requested: string[] = []
let status = 200

beforeEach(() => {
  requested.length = 0
  status = 200
  vi.stubGlobal('fetch', async (request: Request) => {
    requested.push(request.url.replace(location.origin, ''))
    const body = status === 200 ? { hosts: [], number: requested.length } : { error: { code: 'invalid_query', message: 'unknown field' } }
    return new Response(JSON.stringify(body), { status })
  })
})
afterEach(() => {
  queryClient.clear()
  vi.unstubAllGlobals()
})

function mountSetup(setup: () => object, template: string) {
  return mount(defineComponent({ setup, template }), { global: { plugins: [[VueQueryPlugin, { queryClient }]] } })
}

function start() {
  const limit = ref(10)
  const setup = () => useApiQuery('/api/v1/hosts', () => ({ params: { query: { limit: limit.value } } }))
  return { limit, mountPage: () => mountSetup(setup, '<p>{{ problem }}|{{ data ? data.number : "" }}</p>') }
}

it('shares one request between components and loads other parameters', async () => {
  const { limit, mountPage } = start()
  const [first, second] = [mountPage(), mountPage()]
  await flushPromises()
  expect(requested).toEqual(['/api/v1/hosts?limit=10'])
  expect([first.text(), second.text()]).toEqual(['|1', '|1'])
  limit.value = 20
  await vi.waitFor(() => expect(first.text()).toBe('|2'))
  expect(requested.at(-1)).toBe('/api/v1/hosts?limit=20')
})

it('keeps the answer and reports the error of a failed repetition', async () => {
  const page = start().mountPage()
  await flushPromises()
  status = 400
  await invalidateQueries('/api/v1/hosts')
  await vi.waitFor(() => expect(page.text()).toBe('Unknown field.|1'))
  expect(requested).toHaveLength(2)
})

it('loads further pages and repeats all of them', async () => {
  let newest = 3
  vi.stubGlobal('fetch', async (request: Request) => {
    const before = Number(new URL(request.url).searchParams.get('before') ?? newest + 1)
    requested.push(request.url.replace(location.origin, ''))
    return new Response(JSON.stringify({ entries: [{ id: before - 1 }], next: before - 1 > 1 ? before - 1 : null }))
  })
  const wrapper = mountSetup(
    () => useApiPages('/api/v1/audit', (before) => ({ params: { query: { limit: 1, before } } })),
    '<button @click="fetchNextPage()">{{ pages.map((page) => page.entries[0].id).join() }}|{{ hasNextPage }}</button>',
  )
  await flushPromises()
  expect(wrapper.text()).toBe('3|true')
  await wrapper.trigger('click')
  await flushPromises()
  expect(wrapper.text()).toBe('3,2|true')
  expect(requested).toEqual(['/api/v1/audit?limit=1', '/api/v1/audit?limit=1&before=3'])
  newest = 4
  await invalidateQueries('/api/v1/audit')
  await flushPromises()
  expect(wrapper.text()).toBe('4,3|true')
})

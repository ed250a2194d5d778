// Loading of all pages of hosts.
import { afterEach, expect, it, vi } from 'vitest'
import { loadHosts } from './hosts'

afterEach(() => vi.unstubAllGlobals())

it('loads hosts of all pages once', async () => {
  const cursors: (string | null)[] = []
  vi.stubGlobal('fetch', (request: Request) => {
    const after = new URL(request.url).searchParams.get('after')
    cursors.push(after)
    const hosts = after ? [{ id: 'b' }, { id: 'c' }] : [{ id: 'a' }, { id: 'b' }]
    return Promise.resolve(Response.json({ hosts, total: 3, next: after ? null : 'cursor', now_ms: 1 }))
  })
  const list = await loadHosts()
  expect(list.hosts.map((host) => host.id)).toEqual(['a', 'b', 'c'])
  expect(cursors).toEqual([null, 'cursor'])
})

import { afterEach, expect, it, vi } from 'vitest'
import { fetchConfirmed, onConfirmationRequired } from './confirmation'

const required = () => Response.json({ error: { code: 'confirmation_required', message: '' } }, { status: 403 })
const created = () => Response.json({}, { status: 201 })
const request = () => new Request('http://hub.example/api/v1/users', { method: 'POST', body: '{"name":"x"}' })

afterEach(() => vi.unstubAllGlobals())

it('request is repeated with its body after the confirmation', async () => {
  const bodies: string[] = []
  vi.stubGlobal('fetch', async (sent: Request) => {
    bodies.push(await sent.text())
    return bodies.length === 1 ? required() : created()
  })
  onConfirmationRequired(() => Promise.resolve(true))
  expect((await fetchConfirmed(request())).status).toBe(201)
  expect(bodies).toEqual(['{"name":"x"}', '{"name":"x"}'])
})

it('request is not repeated without the confirmation', async () => {
  const send = vi.fn(() => Promise.resolve(required()))
  vi.stubGlobal('fetch', send)
  onConfirmationRequired(() => Promise.resolve(false))
  expect((await fetchConfirmed(request())).status).toBe(403)
  expect(send).toHaveBeenCalledTimes(1)
})

it('other errors need no confirmation', async () => {
  const handler = vi.fn(() => Promise.resolve(true))
  onConfirmationRequired(handler)
  vi.stubGlobal('fetch', () => Promise.resolve(Response.json({ error: { code: 'forbidden' } }, { status: 403 })))
  expect((await fetchConfirmed(request())).status).toBe(403)
  expect(handler).not.toHaveBeenCalled()
})

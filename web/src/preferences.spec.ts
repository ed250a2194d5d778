import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { pins, togglePin } from './lib/pins'
import { syncPreferences } from './preferences'

const [A, B] = ['01a1ffe1-afde-72f9-853f-a45c90cff753', '01a1ffe1-afde-72f9-853f-a45c90cff754'] as const
let answer: object = {}
let isDown = false
const saved: unknown[] = []

beforeEach(() => {
  vi.useFakeTimers()
  localStorage.clear()
  saved.length = 0
  isDown = false
  pins.value = []
  vi.stubGlobal('fetch', async (request: Request) => {
    if (isDown) throw new TypeError('unreachable')
    if (request.method === 'PUT') saved.push(await request.json())
    return Response.json(answer)
  })
})
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

describe('syncPreferences', () => {
  it('shows the values of the account, and saves changes once', async () => {
    answer = { pins: [A], host_columns: ['cpu'], host_filters: null }
    await syncPreferences('first')
    expect(pins.value).toEqual([A])
    expect(localStorage.getItem('perfwatch.hosts.columns')).toBe('["cpu"]')
    expect(saved).toEqual([])
    togglePin(B)
    togglePin(A)
    await vi.advanceTimersByTimeAsync(1_000)
    expect(saved).toEqual([{ pins: [B], host_columns: ['cpu'], host_filters: null }])
  })

  it('adopts the values of a browser without an account, but not those of another account', async () => {
    localStorage.setItem('perfwatch.pins', JSON.stringify([A, 'no id']))
    answer = {}
    await syncPreferences('second')
    expect(saved).toEqual([{ pins: [A], host_columns: null, host_filters: null }])
    pins.value = [A]
    await syncPreferences('third')
    expect(saved).toHaveLength(1)
    expect([pins.value, localStorage.getItem('perfwatch.pins')]).toEqual([[], null])
  })

  it('does not replace values of the hub that it could not read', async () => {
    isDown = true
    await syncPreferences('fourth')
    togglePin(A)
    await vi.advanceTimersByTimeAsync(1_000)
    isDown = false
    answer = { pins: [B] }
    togglePin(B)
    await vi.advanceTimersByTimeAsync(1_000)
    expect(saved).toEqual([])
    expect(pins.value).toEqual([B])
  })
})

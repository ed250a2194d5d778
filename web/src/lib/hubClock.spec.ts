import { afterEach, expect, test, vi } from 'vitest'
import { compareClocks, hubNow, notedOffsetMs } from './hubClock'

const HUB = Date.parse('2026-11-28T12:00:00Z')
const answer = (headers: Record<string, string> = {}) => new Response('', { headers: { date: new Date(HUB).toUTCString(), ...headers } })

afterEach(() => vi.useRealTimers())

test.each([
  ['two hours ahead', 7_200_000],
  ['two hours behind', -7_200_000],
])('the time of the hub is used if the browser is %s', (_, skew) => {
  vi.useFakeTimers({ now: HUB + skew })
  compareClocks(answer(), Date.now())
  expect(Math.abs(hubNow() - HUB)).toBeLessThanOrEqual(500)
  expect(Math.abs(notedOffsetMs.value - skew)).toBeLessThanOrEqual(500)
})

test('jitter, slow answers and answers from a cache change nothing', () => {
  vi.useFakeTimers({ now: HUB + 1_200 })
  compareClocks(answer(), Date.now())
  expect(hubNow()).toBe(Date.now())
  vi.setSystemTime(HUB + 8_000)
  compareClocks(answer(), Date.now() - 20_000)
  vi.setSystemTime(HUB + 600_000)
  compareClocks(answer({ age: '600' }), Date.now())
  expect(hubNow()).toBe(Date.now())
  expect(notedOffsetMs.value).toBe(0)
})

test('a slow answer corrects a clock that is wrong by more than its duration', () => {
  vi.useFakeTimers({ now: HUB + 3_600_000 })
  compareClocks(answer(), Date.now() - 10_000)
  expect(Math.abs(hubNow() - HUB)).toBeLessThanOrEqual(6_000)
})

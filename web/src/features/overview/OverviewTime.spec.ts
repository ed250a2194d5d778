import { flushPromises, mount } from '@vue/test-utils'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { createMemoryHistory, createRouter } from 'vue-router'
import OverviewTime from './OverviewTime.vue'
import ReplayBar from './ReplayBar.vue'

const NOW_MS = 1_763_719_200_000
const HOUR_MS = 3_600_000

const replayAt = (ms: number) => ({ at_ms: ms, duration_ms: 1, incidents: [], left_out: [], tiers: [] })

async function start(url: string, answered?: number) {
  const router = createRouter({ history: createMemoryHistory(), routes: [{ path: '/', component: OverviewTime }] })
  await router.push(url)
  const urlTime = () => router.currentRoute.value.query.at as string | undefined
  const wrapper = mount(OverviewTime, {
    props: { at: urlTime(), replay: answered === undefined ? null : replayAt(answered), hasFailed: false },
    global: { plugins: [router], stubs: { teleport: true, RangeBar: true } },
  })
  await vi.dynamicImportSettled()
  await flushPromises()
  const openTime = async (ms: number) => {
    wrapper.findComponent(ReplayBar).vm.$emit('goto', ms, false)
    await flushPromises()
    await wrapper.setProps({ at: urlTime() })
    await flushPromises()
  }
  const answer = async (ms: number) => {
    await wrapper.setProps({ replay: replayAt(ms) })
    await flushPromises()
  }
  return { urlTime, openTime, answer, query: () => router.currentRoute.value.query }
}

describe('OverviewTime', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'], now: NOW_MS }))
  afterEach(() => void vi.useRealTimers())

  it('keeps a chosen time outside the range while the answer of the former time is shown', async () => {
    const former = NOW_MS - 60_000
    const { urlTime, openTime, answer, query } = await start(`/?at=${former}`, former)
    const chosen = NOW_MS - 25 * HOUR_MS
    await openTime(chosen)
    expect(urlTime()).toBe(String(chosen))
    expect(Number(query().from)).toBeLessThan(chosen)
    await answer(chosen)
    expect(urlTime()).toBe(String(chosen))
  })

  it('moves the range to the answered time of an address', async () => {
    const outside = NOW_MS - 48 * HOUR_MS
    const { urlTime, answer, query } = await start('/?at=-2d')
    await answer(outside)
    expect(urlTime()).toBe(String(outside))
    expect(Number(query().to)).toBeLessThan(NOW_MS)
  })
})

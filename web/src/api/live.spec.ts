import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LiveSocket } from './live'

class FakeSocket {
  static all: FakeSocket[] = []
  static OPEN = 1
  readyState = 0
  sent: any[] = []
  onopen?: () => void
  onmessage?: (event: { data: string }) => void
  onclose?: (() => void) | null
  constructor(readonly url: string) {
    FakeSocket.all.push(this)
  }
  open() {
    this.readyState = 1
    this.onopen?.()
  }
  say(message: object) {
    this.onmessage?.({ data: JSON.stringify(message) })
  }
  close() {
    this.readyState = 3
    this.onclose?.()
  }
  send(text: string) {
    this.sent.push(JSON.parse(text))
  }
}

const wish = { hosts: ['a'], metrics: ['cpu.usage'], processes: false, backfill_s: 300 }

describe('LiveSocket', () => {
  beforeEach(() => {
    vi.useFakeTimers()
    FakeSocket.all = []
    vi.stubGlobal('WebSocket', FakeSocket)
  })
  afterEach(() => {
    vi.useRealTimers()
    vi.unstubAllGlobals()
  })

  it('asks again after a loss, with growing pauses, and goes live by itself', () => {
    const live = new LiveSocket('ws://x')
    live.subscribe(wish, () => {})
    FakeSocket.all[0]!.open()
    expect(FakeSocket.all[0]!.sent).toEqual([{ subscribe: { id: 1, ...wish } }])
    expect(live.state.value.kind).toBe('live')
    FakeSocket.all[0]!.close()
    const pauses: number[] = []
    for (let n = 1; n < 8; n++) {
      const state = live.state.value
      if (state.kind !== 'waiting') throw new Error(state.kind)
      pauses.push(state.retryAt - Date.now())
      vi.advanceTimersByTime(10_000)
      FakeSocket.all[n]!.close()
    }
    expect(pauses[0]).toBeLessThanOrEqual(500)
    expect(Math.max(...pauses)).toBeGreaterThan(3_000)
    expect(Math.max(...pauses)).toBeLessThanOrEqual(8_000)
    vi.advanceTimersByTime(10_000)
    const last = FakeSocket.all.at(-1)!
    last.open()
    expect(last.sent).toEqual([{ subscribe: { id: 1, ...wish } }])
    expect(live.state.value.kind).toBe('live')
  })

  it('gives messages to whom they are for, and asks again when it lagged', () => {
    const live = new LiveSocket('ws://x')
    const one = vi.fn()
    const two = vi.fn()
    live.subscribe(wish, one)
    const end = live.subscribe(wish, two)
    const socket = FakeSocket.all[0]!
    socket.open()
    socket.say({ type: 'tick', id: 2, hosts: [] })
    expect(one).not.toHaveBeenCalled()
    expect(two).toHaveBeenCalledOnce()
    socket.sent = []
    socket.say({ type: 'lagged', missed: 5 })
    expect(socket.sent.map((m) => m.subscribe.id)).toEqual([1, 2])
    end()
    socket.say({ type: 'tick', id: 2, hosts: [] })
    expect(two).toHaveBeenCalledOnce()
  })

  it('closes when nobody asks any more and opens anew', () => {
    const live = new LiveSocket('ws://x')
    live.subscribe(wish, () => {})()
    // The next page asks a moment later, over the same line.
    vi.advanceTimersByTime(1_000)
    const end = live.onAlerts(() => {})
    vi.advanceTimersByTime(5_000)
    expect(FakeSocket.all[0]!.readyState).not.toBe(3)
    end()
    vi.advanceTimersByTime(5_000)
    expect(FakeSocket.all[0]!.readyState).toBe(3)
    vi.advanceTimersByTime(60_000)
    expect(FakeSocket.all).toHaveLength(1)
    live.subscribe(wish, () => {})
    expect(FakeSocket.all).toHaveLength(2)
  })

  it('asks a quiet connection for a sign of life, and drops it without one', () => {
    const live = new LiveSocket('ws://x')
    live.subscribe(wish, () => {})
    const first = FakeSocket.all[0]!
    first.open()
    first.sent = []
    vi.advanceTimersByTime(25_000)
    expect(first.sent).toEqual([{ ping: 1 }])
    first.say({ type: 'pong', ping: 1 })
    vi.advanceTimersByTime(20_000)
    expect(FakeSocket.all).toHaveLength(1)
    vi.advanceTimersByTime(20_000)
    expect(FakeSocket.all.length).toBeGreaterThan(1)
    expect(first.readyState).toBe(3)
  })

  it('does not wait for ever for a connection', () => {
    const live = new LiveSocket('ws://x')
    live.subscribe(wish, () => {})
    vi.advanceTimersByTime(11_000)
    expect(FakeSocket.all.length).toBeGreaterThan(1)
  })
})

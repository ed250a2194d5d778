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
  receive(message: object) {
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

const request = { hosts: ['a'], metrics: ['cpu.usage'], processes: false, backfill_s: 300 }

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

  it('reconnects with backoff and resubscribes', () => {
    const live = new LiveSocket('ws://x')
    live.subscribe(request, () => {})
    FakeSocket.all[0]!.open()
    expect(FakeSocket.all[0]!.sent).toEqual([{ subscribe: { id: 1, ...request } }])
    expect(live.state.value.kind).toBe('live')
    FakeSocket.all[0]!.close()
    const delays: number[] = []
    for (let n = 1; n < 8; n++) {
      const state = live.state.value
      if (state.kind !== 'reconnecting') throw new Error(state.kind)
      delays.push(state.retryAt - Date.now())
      vi.advanceTimersByTime(10_000)
      FakeSocket.all[n]!.close()
    }
    expect(delays[0]).toBeLessThanOrEqual(500)
    expect(Math.max(...delays)).toBeGreaterThan(3_000)
    expect(Math.max(...delays)).toBeLessThanOrEqual(8_000)
    vi.advanceTimersByTime(10_000)
    const last = FakeSocket.all.at(-1)!
    last.open()
    expect(last.sent).toEqual([{ subscribe: { id: 1, ...request } }])
    expect(live.state.value.kind).toBe('live')
  })

  it('routes messages by subscription and resubscribes after lag', () => {
    const live = new LiveSocket('ws://x')
    const first = vi.fn()
    const second = vi.fn()
    live.subscribe(request, first)
    const unsubscribe = live.subscribe(request, second)
    const socket = FakeSocket.all[0]!
    socket.open()
    socket.receive({ type: 'tick', id: 2, hosts: [] })
    expect(first).not.toHaveBeenCalled()
    expect(second).toHaveBeenCalledOnce()
    socket.sent = []
    socket.receive({ type: 'lagged', dropped: 5 })
    expect(socket.sent.map((m) => m.subscribe.id)).toEqual([1, 2])
    unsubscribe()
    socket.receive({ type: 'tick', id: 2, hosts: [] })
    expect(second).toHaveBeenCalledOnce()
  })

  it('closes without subscribers and reopens', () => {
    const live = new LiveSocket('ws://x')
    live.subscribe(request, () => {})()
    // The next page subscribes in time and keeps the connection.
    vi.advanceTimersByTime(1_000)
    const unsubscribe = live.onIncidentCounts(() => {})
    vi.advanceTimersByTime(5_000)
    expect(FakeSocket.all[0]!.readyState).not.toBe(3)
    unsubscribe()
    vi.advanceTimersByTime(5_000)
    expect(FakeSocket.all[0]!.readyState).toBe(3)
    vi.advanceTimersByTime(60_000)
    expect(FakeSocket.all).toHaveLength(1)
    live.subscribe(request, () => {})
    expect(FakeSocket.all).toHaveLength(2)
  })

  it('pings idle connections and drops dead ones', () => {
    const live = new LiveSocket('ws://x')
    live.subscribe(request, () => {})
    const first = FakeSocket.all[0]!
    first.open()
    first.sent = []
    vi.advanceTimersByTime(25_000)
    expect(first.sent).toEqual([{ ping: 1 }])
    first.receive({ type: 'pong', ping: 1 })
    vi.advanceTimersByTime(20_000)
    expect(FakeSocket.all).toHaveLength(1)
    vi.advanceTimersByTime(20_000)
    expect(FakeSocket.all.length).toBeGreaterThan(1)
    expect(first.readyState).toBe(3)
  })

  it('times out a pending connection', () => {
    const live = new LiveSocket('ws://x')
    live.subscribe(request, () => {})
    vi.advanceTimersByTime(11_000)
    expect(FakeSocket.all.length).toBeGreaterThan(1)
  })
})

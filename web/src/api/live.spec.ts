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

/** Reader of a hub that does not answer. */
const unreachable = () => Promise.reject(new TypeError('unreachable'))
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
    const live = new LiveSocket('ws://x', unreachable)
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
    const live = new LiveSocket('ws://x', unreachable)
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
    const live = new LiveSocket('ws://x', unreachable)
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
    const live = new LiveSocket('ws://x', unreachable)
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
    const live = new LiveSocket('ws://x', unreachable)
    live.subscribe(request, () => {})
    vi.advanceTimersByTime(11_000)
    expect(FakeSocket.all.length).toBeGreaterThan(1)
  })

  it('polls while no WebSocket opens, and stops when one does', async () => {
    const queries: object[] = []
    const backfill = {
      type: 'backfill' as const,
      id: 0,
      hosts: [{ host: 'a', shape: 's', interval_ms: 1_000, columns: [], t: [1_000, 2_000], v: [[1, 2]] }],
    }
    const counts = { type: 'incident_counts' as const, revision: 1, info: 0, warning: 2, critical: 0 }
    const live = new LiveSocket(
      'ws://x',
      async (query) => {
        queries.push(query)
        return [backfill, counts]
      },
      unreachable,
    )
    const received: any[] = []
    const warnings: number[] = []
    live.subscribe(request, (message) => received.push(message))
    live.onIncidentCounts(({ warning }) => warnings.push(warning))
    FakeSocket.all[0]!.close()
    expect(live.state.value.kind).toBe('reconnecting')
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.all[1]!.close()
    await vi.advanceTimersByTimeAsync(1)
    expect(live.state.value.kind).toBe('polling')
    expect(received.map(({ type }) => type)).toEqual(['backfill', 'tick'])
    expect(received[1].hosts[0]).toMatchObject({ host: 'a', t: 2_000, v: [2] })
    expect(warnings).toEqual([2])
    await vi.advanceTimersByTimeAsync(2_000)
    expect(queries).toEqual([
      { host: 'a', metric: 'cpu.usage', processes: false, since: undefined },
      { host: 'a', metric: 'cpu.usage', processes: false, since: 2_000 },
    ])
    FakeSocket.all[2]!.close()
    expect(live.state.value.kind).toBe('polling')
    await vi.advanceTimersByTimeAsync(20_000)
    FakeSocket.all[3]!.open()
    expect(live.state.value.kind).toBe('live')
    const count = queries.length
    await vi.advanceTimersByTimeAsync(10_000)
    expect(queries.length).toBe(count)
  })

  it('polls while an attempt is pending, and shows when the hub stops answering', async () => {
    let answers = true
    const live = new LiveSocket('ws://x', async () => (answers ? [] : unreachable()), unreachable)
    live.subscribe(request, () => {})
    await vi.advanceTimersByTimeAsync(3_100)
    expect(live.state.value.kind).toBe('polling')
    answers = false
    await vi.advanceTimersByTimeAsync(2_000)
    expect(live.state.value.kind).toBe('reconnecting')
  })

  it('authenticates with a token if the hub rejects the origin', async () => {
    const live = new LiveSocket(
      'ws://x',
      async () => [],
      async () => 'signed',
    )
    live.subscribe(request, () => {})
    FakeSocket.all[0]!.close()
    await vi.advanceTimersByTimeAsync(500)
    FakeSocket.all[1]!.close()
    await vi.advanceTimersByTimeAsync(1)
    expect(FakeSocket.all.map(({ url }) => url)).toEqual(['ws://x', 'ws://x', 'ws://x?token=signed'])
    FakeSocket.all[2]!.open()
    expect(live.state.value.kind).toBe('live')
  })
})

// Live data over plain HTTP, for networks in which no WebSocket can be opened.
import { api, unwrap } from './client'
import type { SubscriptionRequest } from './live'
import type { HostBackfill, LiveMessage } from './types'

/** Time between two polls. */
export const POLL_INTERVAL_MS = 2_000

interface Subscription {
  request: SubscriptionRequest
  handler: (message: LiveMessage) => void
}

export interface PollTarget {
  subscriptions: ReadonlyMap<number, Subscription>
  onCounts(message: LiveMessage): void
  /** Called after each round of requests. */
  onResult(succeeded: boolean): void
}

/** Reads the messages of one host since a time, or only the numbers of incidents. */
export type ReadLive = (query: { host?: string; metric?: string; processes?: boolean; since?: number }) => Promise<LiveMessage[]>

const readLive: ReadLive = async (query) => (await unwrap(api.GET('/api/v1/live', { params: { query } }))).messages

export class LivePoller {
  private timer: ReturnType<typeof setTimeout> | undefined
  private running = false
  /** Time of the newest snapshot by subscription and host, in Unix milliseconds. */
  private newest = new Map<string, number>()

  constructor(
    private readonly target: PollTarget,
    private readonly read: ReadLive = readLive,
  ) {}

  start() {
    if (this.running) return
    this.running = true
    void this.poll()
  }

  stop() {
    this.running = false
    this.newest.clear()
    clearTimeout(this.timer)
  }

  private async poll() {
    const succeeded = await this.readAll().then(
      () => true,
      () => false,
    )
    if (!this.running) return
    this.target.onResult(succeeded)
    this.timer = setTimeout(() => void this.poll(), POLL_INTERVAL_MS)
  }

  private async readAll() {
    const { subscriptions } = this.target
    if (subscriptions.size === 0) this.deliver(await this.read({}))
    for (const [id, subscription] of subscriptions) {
      for (const host of subscription.request.hosts) {
        const { metrics, processes } = subscription.request
        const key = `${id} ${host}`
        const messages = await this.read({ host, metric: metrics.join(',') || undefined, processes, since: this.newest.get(key) })
        if (!this.running || subscriptions.get(id) !== subscription) return
        this.deliver(messages, subscription, key)
      }
    }
  }

  private deliver(messages: LiveMessage[], subscription?: Subscription, key = '') {
    for (const message of messages) {
      if (message.type !== 'backfill') {
        this.target.onCounts(message)
        continue
      }
      subscription?.handler(message)
      const last = message.hosts.at(-1)
      if (!last || last.t.length === 0) continue
      this.newest.set(key, last.t.at(-1)!)
      // A tick marks the host as present; the backfill may be from before the page was opened.
      subscription?.handler({ type: 'tick', id: message.id, hosts: [newestTick(last)] })
    }
  }
}

function newestTick({ host, shape, interval_ms, t, v, processes }: HostBackfill) {
  const row = t.length - 1
  return { host, shape, interval_ms, t: t[row]!, seq: 0, v: v.map((column) => column[row] ?? null), processes }
}

// The WebSocket of the dashboard: one connection for all subscriptions, with reconnection. While no WebSocket
// can be opened, data is polled over HTTP.
//
// Every connection and every `lagged` message repeats all subscriptions with their backfill. Columns
// identify a tick by its time, so that repeated ticks are not duplicated and missed ticks arrive.
import { shallowRef } from 'vue'
import { webSocketUrl } from '../lib/base'
import { api, unwrap } from './client'
import { endSession } from './errors'
import { LivePoller, type ReadLive } from './livePoll'
import type { IncidentCounts, LiveMessage } from './types'

export interface SubscriptionRequest {
  hosts: string[]
  metrics: string[]
  processes: boolean
  backfill_s: number
}

export type Handler = (message: LiveMessage) => void

export type LiveState =
  | { kind: 'connecting' }
  | { kind: 'live' }
  /** No WebSocket can be opened, but the hub answers over HTTP. */
  | { kind: 'polling' }
  | { kind: 'reconnecting'; attempt: number; retryAt: number; since: number }

/** Delay before the first reconnection; doubles up to the maximum. */
const MIN_BACKOFF_MS = 500
const MAX_BACKOFF_MS = 8_000
/** Delay between attempts while data is polled over HTTP. */
const POLLING_BACKOFF_MS = 20_000
/** Failed attempts after which polling starts; a restarted hub may answer requests before the next attempt. */
const POLL_AFTER_ATTEMPTS = 2
/** Time after which polling starts while an attempt is pending. */
const POLL_AFTER_MS = 3_000
/** Time without a message after which a ping is sent. */
const PING_AFTER_MS = 20_000
/** Close code of the hub for a session that is no longer valid. */
const CLOSE_UNAUTHENTICATED = 4401
/** Time the connection stays open without subscriptions: longer than a page change. */
const IDLE_TIMEOUT_MS = 3_000
/** Timeout of a pong and of a pending connection. */
const RESPONSE_TIMEOUT_MS = 10_000
/** Interval of the check for a dead connection. */
const WATCHDOG_INTERVAL_MS = 5_000
/** Delay before a rejected subscription is repeated. */
const RESUBSCRIBE_DELAY_MS = 1_000

/** Creates a token that authenticates a WebSocket whose origin the hub does not accept. */
const createToken = async () => (await unwrap(api.POST('/api/v1/auth/websocket-token'))).token

export class LiveSocket {
  readonly state = shallowRef<LiveState>({ kind: 'connecting' })
  private socket: WebSocket | null = null
  private subscriptions = new Map<number, { request: SubscriptionRequest; handler: Handler }>()
  private countHandlers = new Set<(counts: IncidentCounts) => void>()
  private nextId = 1
  private attempt = 0
  private lostAt = 0
  private retry: ReturnType<typeof setTimeout> | undefined
  private idleTimer: ReturnType<typeof setTimeout> | undefined
  private watchdog: ReturnType<typeof setInterval> | undefined
  private receivedAt = 0
  private readonly url: string
  private readonly poller: LivePoller
  /** Token of the next attempt; empty to authenticate with the session cookie. */
  private token = ''
  private readonly createToken: () => Promise<string>

  constructor(url: string, read?: ReadLive, readToken = createToken) {
    this.url = url
    this.createToken = readToken
    const target = { subscriptions: this.subscriptions, onCounts: this.dispatch.bind(this), onResult: this.onPolled.bind(this) }
    this.poller = new LivePoller(target, read)
    // After suspend or a network change, reconnect without waiting for the backoff.
    window.addEventListener('online', this.reconnectNow)
    document.addEventListener('visibilitychange', this.reconnectNow)
  }

  /** Subscribes to hosts and metrics; the returned function unsubscribes. */
  subscribe(request: SubscriptionRequest, handler: Handler): () => void {
    const id = this.nextId++
    this.subscriptions.set(id, { request, handler })
    if (!this.socket && this.retry === undefined) this.connect()
    else this.send({ subscribe: { id, ...request } })
    return () => {
      this.subscriptions.delete(id)
      this.send({ unsubscribe: id })
      this.closeWhenIdle()
    }
  }

  /** Subscribes to the number of open incidents; the returned function unsubscribes. */
  onIncidentCounts(handler: (counts: IncidentCounts) => void): () => void {
    this.countHandlers.add(handler)
    if (!this.socket && this.retry === undefined) this.connect()
    else this.send({ incident_counts: true })
    return () => {
      this.countHandlers.delete(handler)
      if (this.countHandlers.size === 0) this.send({ incident_counts: false })
      this.closeWhenIdle()
    }
  }

  /** Closes the connection unless the next page subscribes in time. */
  private closeWhenIdle() {
    clearTimeout(this.idleTimer)
    this.idleTimer = setTimeout(() => {
      if (this.subscriptions.size === 0 && this.countHandlers.size === 0) this.close()
    }, IDLE_TIMEOUT_MS)
  }

  /** Drops all subscriptions and closes the connection. */
  reset() {
    this.subscriptions.clear()
    this.countHandlers.clear()
    this.close()
  }

  private close() {
    clearTimeout(this.retry)
    clearTimeout(this.idleTimer)
    clearInterval(this.watchdog)
    this.poller.stop()
    this.retry = undefined
    this.token = ''
    const socket = this.socket
    this.socket = null
    socket?.close()
    this.attempt = 0
    this.lostAt = 0
    this.state.value = { kind: 'connecting' }
  }

  private connect() {
    clearTimeout(this.retry)
    this.retry = undefined
    const { token } = this
    this.token = ''
    const socket = new WebSocket(token ? `${this.url}?token=${token}` : this.url)
    this.socket = socket
    const timeout = setTimeout(() => this.abandon(socket), RESPONSE_TIMEOUT_MS)
    const pollTimeout = setTimeout(() => this.socket === socket && this.poller.start(), POLL_AFTER_MS)
    socket.onopen = () => {
      clearTimeout(timeout)
      clearTimeout(pollTimeout)
      if (this.socket !== socket) return
      this.poller.stop()
      this.attempt = 0
      this.lostAt = 0
      this.receivedAt = Date.now()
      this.state.value = { kind: 'live' }
      this.subscribeAll()
      clearInterval(this.watchdog)
      this.watchdog = setInterval(() => this.checkConnection(socket), WATCHDOG_INTERVAL_MS)
    }
    socket.onmessage = (event) => {
      if (this.socket !== socket) return
      this.receivedAt = Date.now()
      this.dispatch(JSON.parse(event.data as string) as LiveMessage)
    }
    socket.onclose = (event) => {
      clearTimeout(timeout)
      clearTimeout(pollTimeout)
      if (this.socket !== socket) return
      this.scheduleReconnect()
      if (event?.code === CLOSE_UNAUTHENTICATED) endSession()
    }
  }

  private dispatch(message: LiveMessage) {
    if (message.type === 'lagged') {
      this.subscribeAll()
    } else if (message.type === 'error') {
      // After a restart the hub does not know the host until its next snapshot.
      setTimeout(() => this.subscribeAll(), RESUBSCRIBE_DELAY_MS)
    } else if (message.type === 'incident_counts') {
      for (const handler of this.countHandlers) handler(message)
    } else if (message.type !== 'pong') {
      this.subscriptions.get(message.id)?.handler(message)
    }
  }

  private scheduleReconnect() {
    clearInterval(this.watchdog)
    this.socket = null
    const now = Date.now()
    this.lostAt ||= now
    this.attempt += 1
    const isPolling = this.state.value.kind === 'polling'
    const backoff = isPolling ? POLLING_BACKOFF_MS : Math.min(MIN_BACKOFF_MS * 2 ** (this.attempt - 1), MAX_BACKOFF_MS)
    const delay = backoff * (0.5 + Math.random() / 2)
    if (!isPolling) this.showReconnecting(now + delay)
    this.retry = setTimeout(() => this.connect(), delay)
    if (this.attempt >= POLL_AFTER_ATTEMPTS) this.poller.start()
  }

  private showReconnecting(retryAt: number) {
    this.state.value = { kind: 'reconnecting', attempt: this.attempt, retryAt, since: this.lostAt }
  }

  /**
   * Browsers report the origin of WebSockets, but not that it is the hub's own: a proxy that changes the host lets
   * requests pass, but no WebSocket with a cookie.
   */
  private async connectWithToken() {
    this.token = await this.createToken().catch(() => '')
    if (this.token && this.retry !== undefined) this.connect()
  }

  private onPolled(succeeded: boolean) {
    const isPolling = this.state.value.kind === 'polling'
    if (succeeded && !isPolling) {
      this.state.value = { kind: 'polling' }
      void this.connectWithToken()
    } else if (!succeeded && isPolling) {
      this.lostAt = Date.now()
      this.showReconnecting(this.lostAt)
    }
  }

  private reconnectNow = () => {
    if (this.retry !== undefined && document.visibilityState === 'visible') this.connect()
  }

  /** A ping distinguishes a dead connection from a host without data. */
  private checkConnection(socket: WebSocket) {
    const idle = Date.now() - this.receivedAt
    if (idle > PING_AFTER_MS + RESPONSE_TIMEOUT_MS) this.abandon(socket)
    else if (idle > PING_AFTER_MS) this.send({ ping: 1 })
  }

  private abandon(socket: WebSocket) {
    if (this.socket !== socket) return
    socket.onclose = null
    socket.close()
    this.scheduleReconnect()
  }

  private subscribeAll() {
    for (const [id, { request }] of this.subscriptions) this.send({ subscribe: { id, ...request } })
    if (this.countHandlers.size > 0) this.send({ incident_counts: true })
  }

  private send(message: object) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message))
  }
}

let shared: LiveSocket | undefined

/** Closes the shared connection at the end of a session. */
export function closeLive() {
  shared?.reset()
}

/** The connection that all pages share. */
export function liveSocket(): LiveSocket {
  shared ??= new LiveSocket(webSocketUrl('/api/ws/metrics'))
  return shared
}

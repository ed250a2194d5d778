// The only WebSocket of the page: connects, comes back by itself, says how it stands.
//
// On every (re)connection and after `lagged`, each wish is sent again with its back-fill: the
// stores know a tick by its time, so nothing comes twice and what was missed arrives.
import { shallowRef } from 'vue'
import { ended } from './http'
import type { AlertCounts, LiveMessage } from './types'

export interface Wish {
  hosts: string[]
  metrics: string[]
  processes: boolean
  backfill_s: number
}

export type Handler = (message: LiveMessage) => void

export type LiveState = { kind: 'connecting' } | { kind: 'live' } | { kind: 'waiting'; attempt: number; retryAt: number; since: number }

/** First pause after a loss, and the longest one. */
const BACKOFF_MS = 500
const BACKOFF_MAX_MS = 8_000
/** Without a word for this long, the connection is asked for a sign of life. */
const QUIET_MS = 20_000
/** The hub's word for who may not any more. */
const NOT_ALLOWED = 4401
/** How long the socket stays when nobody asks: longer than it takes to open another page. */
const LINGER_MS = 3_000
/** How long such a sign, or a connection, may take. */
const ANSWER_MS = 10_000

export class LiveSocket {
  readonly state = shallowRef<LiveState>({ kind: 'connecting' })
  private socket: WebSocket | null = null
  private wishes = new Map<number, { wish: Wish; handler: Handler }>()
  private alertHandlers = new Set<(counts: AlertCounts) => void>()
  private nextId = 1
  private attempt = 0
  private lostAt = 0
  private retry: ReturnType<typeof setTimeout> | undefined
  private leaving: ReturnType<typeof setTimeout> | undefined
  private watchdog: ReturnType<typeof setInterval> | undefined
  private heardAt = 0
  private readonly url: string

  constructor(url: string) {
    this.url = url
    // A laptop that wakes up or a network that returns should not sit out the back-off.
    window.addEventListener('online', this.hurry)
    document.addEventListener('visibilitychange', this.hurry)
  }

  /** Asks for data; the returned function ends it. The socket lives while anyone asks. */
  subscribe(wish: Wish, handler: Handler): () => void {
    const id = this.nextId++
    this.wishes.set(id, { wish, handler })
    if (!this.socket && this.retry === undefined) this.connect()
    else this.send({ subscribe: { id, ...wish } })
    return () => {
      this.wishes.delete(id)
      this.send({ unsubscribe: id })
      this.leaveSoon()
    }
  }

  /** Asks how many incidents are open, now and whenever that changes; the returned function ends it. */
  onAlerts(handler: (counts: AlertCounts) => void): () => void {
    this.alertHandlers.add(handler)
    if (!this.socket && this.retry === undefined) this.connect()
    else this.send({ alerts: true })
    return () => {
      this.alertHandlers.delete(handler)
      if (this.alertHandlers.size === 0) this.send({ alerts: false })
      this.leaveSoon()
    }
  }

  /** Where nobody asks any more, the socket goes; but the next page usually asks a moment later. */
  private leaveSoon() {
    clearTimeout(this.leaving)
    this.leaving = setTimeout(() => {
      if (this.wishes.size === 0 && this.alertHandlers.size === 0) this.close()
    }, LINGER_MS)
  }

  /** Nothing more until somebody asks again. */
  end() {
    this.wishes.clear()
    this.alertHandlers.clear()
    this.close()
  }

  private close() {
    clearTimeout(this.retry)
    clearTimeout(this.leaving)
    clearInterval(this.watchdog)
    this.retry = undefined
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
    const socket = new WebSocket(this.url)
    this.socket = socket
    const late = setTimeout(() => this.giveUp(socket), ANSWER_MS)
    socket.onopen = () => {
      clearTimeout(late)
      if (this.socket !== socket) return
      this.attempt = 0
      this.lostAt = 0
      this.heardAt = Date.now()
      this.state.value = { kind: 'live' }
      this.subscribeAll()
      clearInterval(this.watchdog)
      this.watchdog = setInterval(() => this.watch(socket), 5_000)
    }
    socket.onmessage = (event) => {
      if (this.socket !== socket) return
      this.heardAt = Date.now()
      this.hear(JSON.parse(event.data as string) as LiveMessage)
    }
    socket.onclose = (event) => {
      clearTimeout(late)
      if (this.socket !== socket) return
      this.lost()
      if (event?.code === NOT_ALLOWED) ended()
    }
  }

  private hear(message: LiveMessage) {
    if (message.type === 'lagged') {
      this.subscribeAll()
    } else if (message.type === 'error') {
      // The host is not known yet, as after a restart of the hub: it will be.
      setTimeout(() => this.subscribeAll(), 1_000)
    } else if (message.type === 'alerts') {
      for (const handler of this.alertHandlers) handler(message)
    } else if (message.type !== 'pong') {
      this.wishes.get(message.id)?.handler(message)
    }
  }

  private lost() {
    clearInterval(this.watchdog)
    this.socket = null
    const now = Date.now()
    this.lostAt ||= now
    this.attempt += 1
    const longest = Math.min(BACKOFF_MS * 2 ** (this.attempt - 1), BACKOFF_MAX_MS)
    const pause = longest * (0.5 + Math.random() / 2)
    this.state.value = { kind: 'waiting', attempt: this.attempt, retryAt: now + pause, since: this.lostAt }
    this.retry = setTimeout(() => this.connect(), pause)
  }

  private hurry = () => {
    if (this.retry !== undefined && document.visibilityState === 'visible') this.connect()
  }

  /** A silent host is no dead connection, and a dead one is silent too: ask over the same line. */
  private watch(socket: WebSocket) {
    const quiet = Date.now() - this.heardAt
    if (quiet > QUIET_MS + ANSWER_MS) this.giveUp(socket)
    else if (quiet > QUIET_MS) this.send({ ping: 1 })
  }

  private giveUp(socket: WebSocket) {
    if (this.socket !== socket) return
    socket.onclose = null
    socket.close()
    this.lost()
  }

  private subscribeAll() {
    for (const [id, { wish }] of this.wishes) this.send({ subscribe: { id, ...wish } })
    if (this.alertHandlers.size > 0) this.send({ alerts: true })
  }

  private send(message: object) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message))
  }
}

let shared: LiveSocket | undefined

/** Whoever was logged in is not any more. */
export function closeLive() {
  shared?.end()
}

export function liveSocket(): LiveSocket {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws'
  shared ??= new LiveSocket(`${scheme}://${location.host}/api/ws/metrics`)
  return shared
}

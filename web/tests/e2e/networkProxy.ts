// TCP proxy between the browser and the hub, with the faults of networks: cut, silent, slow.
import { type AddressInfo, createServer, connect, type Server, type Socket } from 'node:net'

/** Parts in which a slow network sends, per second. */
const PARTS_PER_SECOND = 20

/** Speed of a slow network. */
export interface Speed {
  /** Delay of each direction in milliseconds. */
  delayMs: number
  bytesPerSecond: number
}

export class NetworkProxy {
  private readonly server: Server
  private readonly sockets = new Set<Socket>()
  private speed?: Speed
  private isCut = false
  private isSilent = false

  constructor(private readonly target: () => string) {
    this.server = createServer((client) => this.accept(client))
  }

  /** Starts to listen; returns the URL of the hub through the proxy. */
  async listen(): Promise<string> {
    await new Promise<void>((done) => this.server.listen(0, '127.0.0.1', done))
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }

  /** Resets all connections and refuses new ones. */
  cut() {
    this.isCut = true
    for (const socket of this.sockets) socket.resetAndDestroy()
  }

  /** Swallows all bytes of open and new connections, like a network that drops every packet. */
  silence() {
    this.isSilent = true
    // Connections of a silent network stay dead after its return.
    for (const socket of this.sockets) socket.pause().removeAllListeners('data')
  }

  /** Ends `cut` and `silence` for new connections. */
  restore() {
    this.isCut = false
    this.isSilent = false
  }

  /** Delays and limits new connections; `undefined` ends it. */
  slow(speed: Speed | undefined) {
    this.speed = speed
  }

  async close() {
    for (const socket of this.sockets) socket.destroy()
    await new Promise((done) => this.server.close(done))
  }

  private accept(client: Socket) {
    const isDead = this.isSilent
    if (this.isCut) {
      client.resetAndDestroy()
      return
    }
    this.add(client)
    if (isDead) return
    const [host, port] = this.target().split(':') as [string, string]
    const hub = connect(Number(port), host)
    this.add(hub)
    this.forward(client, hub)
    this.forward(hub, client)
  }

  private add(socket: Socket) {
    this.sockets.add(socket)
    socket.setNoDelay(true)
    // The browser sees a reset connection.
    socket.on('error', () => {})
    socket.on('close', () => this.sockets.delete(socket))
  }

  private forward(from: Socket, to: Socket) {
    const { speed } = this
    from.on('close', () => to.destroy())
    if (!speed) {
      from.on('data', (bytes) => to.write(bytes))
      from.on('end', () => to.end())
      return
    }
    // Bytes leave one after the other at the speed, and arrive after the delay.
    let freeMs = 0
    const partBytes = speed.bytesPerSecond / PARTS_PER_SECOND
    // Timers of different lengths may fire in another order: each delivers what is due next.
    const queue: (() => void)[] = []
    const schedule = (bytes: number, deliver: () => void) => {
      const now = performance.now()
      freeMs = Math.max(freeMs, now) + (bytes / speed.bytesPerSecond) * 1_000
      queue.push(deliver)
      setTimeout(() => queue.shift()?.(), freeMs - now + speed.delayMs)
    }
    from.on('data', (bytes: Buffer) => {
      for (let at = 0; at < bytes.length; at += partBytes) {
        const part = bytes.subarray(at, at + partBytes)
        schedule(part.length, () => to.writable && to.write(part))
      }
    })
    from.on('end', () => schedule(0, () => to.end()))
  }
}

// Costs of a page over a time: CPU of Chromium's processes, script and layout, long tasks, frames, heap.
import type { Browser, BrowserContext, CDPSession, Page } from 'playwright-core'

/** Duration of a frame at 60 Hz, in milliseconds. */
const FRAME_MS = 1_000 / 60

declare global {
  interface Window {
    benchmark: {
      /** Start and duration of each long task in milliseconds since the navigation. */
      longTasks: { start: number; duration: number }[]
      /** Time of the first line on a canvas in milliseconds since the navigation; 0 before it. */
      firstLineMs: number
    }
  }
}

/** Notes long tasks and the first drawn line of every page of the context. */
export async function instrument(context: BrowserContext) {
  await context.addInitScript(() => {
    window.benchmark = { longTasks: [], firstLineMs: 0 }
    new PerformanceObserver((list) => {
      for (const { startTime: start, duration } of list.getEntries()) window.benchmark.longTasks.push({ start, duration })
    }).observe({ type: 'longtask', buffered: true })
    const { prototype } = CanvasRenderingContext2D
    const { stroke } = prototype
    prototype.stroke = function (this: CanvasRenderingContext2D, ...path: unknown[]) {
      window.benchmark.firstLineMs = performance.now()
      // Later lines cost nothing more.
      prototype.stroke = stroke
      stroke.apply(this, path as [Path2D])
    } as typeof stroke
  })
}

interface Counters {
  /** Time of the page in milliseconds since the navigation. */
  pageMs: number
  /** CPU seconds by process. */
  processes: Map<number, { isRenderer: boolean; cpuS: number }>
  /** Counters of the renderer in seconds, and its heap in bytes after a garbage collection. */
  script: number
  layout: number
  task: number
  heap: number
}

/** Costs between two readings of the counters. */
export interface Cost {
  seconds: number
  /** CPU of the page's process and of all processes of the browser, in percent of a core. */
  rendererPercent: number
  browserPercent: number
  /** Milliseconds per second. */
  scriptMs: number
  layoutMs: number
  taskMs: number
  longTasks: number[]
  heapBefore: number
  heapAfter: number
}

/** Reads the costs of one page; other pages of the browser should be closed. */
export class Meter {
  private before?: Counters

  private constructor(
    private readonly page: Page,
    private readonly session: CDPSession,
    private readonly browserSession: CDPSession,
  ) {}

  static async attach(browser: Browser, page: Page): Promise<Meter> {
    const session = await page.context().newCDPSession(page)
    await session.send('Performance.enable')
    return new Meter(page, session, await browser.newBrowserCDPSession())
  }

  async start() {
    this.before = await this.read()
  }

  async stop(): Promise<Cost> {
    const [before, after] = [this.before!, await this.read()]
    const longTasks = await this.page.evaluate(
      ([from, to]) => window.benchmark.longTasks.filter(({ start }) => start >= from! && start < to!).map(({ duration }) => duration),
      [before.pageMs, after.pageMs],
    )
    const seconds = (after.pageMs - before.pageMs) / 1_000
    const perSecond = (name: 'script' | 'layout' | 'task') => ((after[name] - before[name]) * 1_000) / seconds
    const percent = (isCounted: (isRenderer: boolean) => boolean) => {
      let cpuS = 0
      for (const [id, process] of after.processes) {
        if (isCounted(process.isRenderer)) cpuS += process.cpuS - (before.processes.get(id)?.cpuS ?? 0)
      }
      return (cpuS / seconds) * 100
    }
    return {
      seconds,
      rendererPercent: percent((isRenderer) => isRenderer),
      browserPercent: percent(() => true),
      scriptMs: perSecond('script'),
      layoutMs: perSecond('layout'),
      taskMs: perSecond('task'),
      longTasks,
      heapBefore: before.heap,
      heapAfter: after.heap,
    }
  }

  private async read(): Promise<Counters> {
    // The collection is a long task itself: it is before the start of the interval, or after its end.
    if (!this.before) await this.session.send('HeapProfiler.collectGarbage')
    const { metrics } = await this.session.send('Performance.getMetrics')
    const { processInfo } = await this.browserSession.send('SystemInfo.getProcessInfo')
    const pageMs = await this.page.evaluate(() => performance.now())
    if (this.before) await this.session.send('HeapProfiler.collectGarbage')
    const { metrics: collected } = await this.session.send('Performance.getMetrics')
    const value = (list: typeof metrics, name: string) => list.find((metric) => metric.name === name)?.value ?? 0
    return {
      pageMs,
      processes: new Map(processInfo.map(({ id, type, cpuTime }) => [id, { isRenderer: type === 'renderer', cpuS: cpuTime }])),
      script: value(metrics, 'ScriptDuration'),
      layout: value(metrics, 'LayoutDuration') + value(metrics, 'RecalcStyleDuration'),
      task: value(metrics, 'TaskDuration'),
      heap: value(collected, 'JSHeapUsedSize'),
    }
  }
}

/** Frames of the page over a time, and those that were dropped. A page is asked for each frame: this costs CPU itself. */
export async function countFrames(page: Page, seconds: number): Promise<{ frames: number; dropped: number; longestMs: number }> {
  return page.evaluate(
    ({ durationMs, frameMs }) =>
      new Promise((resolve) => {
        const count = { frames: 0, dropped: 0, longestMs: 0 }
        let previous = 0
        const end = performance.now() + durationMs
        const onFrame = (time: number) => {
          if (previous) {
            const gap = time - previous
            count.frames++
            count.dropped += Math.max(Math.round(gap / frameMs) - 1, 0)
            count.longestMs = Math.max(count.longestMs, gap)
          }
          previous = time
          if (time < end) requestAnimationFrame(onFrame)
          else resolve(count)
        }
        requestAnimationFrame(onFrame)
      }),
    { durationMs: seconds * 1_000, frameMs: FRAME_MS },
  )
}

/** Bytes of the answers of a page as they were sent, by the kind of the request. */
export async function countTransfer(context: BrowserContext, page: Page) {
  const session = await context.newCDPSession(page)
  await session.send('Network.enable')
  const paths = new Map<string, string>()
  const bytes = { files: 0, requests: 0 }
  session.on('Network.responseReceived', ({ requestId, response }) => paths.set(requestId, new URL(response.url).pathname))
  session.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => {
    const path = paths.get(requestId)
    if (path !== undefined) bytes[path.startsWith('/api/') ? 'requests' : 'files'] += encodedDataLength
  })
  return bytes
}

// The overview and a host page under bad conditions: a restart of the hub, networks that are cut, silent or slow, tabs that
// sleep or are hidden, wrong clocks. The page says what it is, and comes back complete.
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { NetworkProxy } from './networkProxy'
import { checkPage, closePage, openBrowser, openPage, type PageOptions, TestSite } from './support'

const INTERVAL_MS = 500
/** Length of an outage: several ticks are missed, more than a gap. */
const OUTAGE_MS = 3_000
const HOUR_MS = 3_600_000
/** Rows of a full chart, less those that the window has moved on. */
const MAX_ROWS = 550
const RETRYING = 'Retrying automatically'

let browser: Browser
let site: TestSite
let proxy: NetworkProxy
let proxyUrl: string
let hostPath: string

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  site.startAgent(`${INTERVAL_MS}ms`)
  // A single host would be shown in place of the list.
  site.startSimulation('--hosts', '3', '--interval', `${INTERVAL_MS}ms`)
  proxy = new NetworkProxy(() => site.address)
  proxyUrl = await proxy.listen()
  const hosts = () => site.request<{ hosts: { id: string; name: string }[] }>('GET', '/api/v1/hosts').then(({ hosts }) => hosts)
  await vi.waitFor(async () => expect(await hosts()).toHaveLength(4), { timeout: 15_000 })
  hostPath = `/hosts/${(await hosts()).find(({ name }) => name === 'e2e-host')!.id}`
})
afterAll(async () => {
  await browser?.close()
  await proxy?.close()
  await site?.stop()
})

const state = (page: Page) => page.locator('.state').getAttribute('data-state')
const values = (page: Page) => page.locator('main tbody').first().textContent()
const cpu = (page: Page) => page.locator('section.chart[aria-label="CPU"]')
const points = async (page: Page) => Number(await cpu(page).getAttribute('data-points'))

interface Pages {
  overview: Page
  host: Page
  close(): Promise<void>
}

/** Opens the overview and the host page beside each other, and waits until both are live. */
async function openPages(options: PageOptions = {}): Promise<Pages> {
  const open = (path: string) => openPage(browser, site, path, { url: proxyUrl, ...options })
  const [overview, host] = await Promise.all([open('/'), open(hostPath)])
  await overview.page.locator('tr[data-host]').first().waitFor()
  await expect.poll(() => points(host.page)).toBeGreaterThan(5)
  const close = async () => {
    await closePage(overview.context, overview.errors)
    await closePage(host.context, host.errors)
  }
  const pages = { overview: overview.page, host: host.page, close }
  await expectStates(pages, 'live')
  return pages
}

async function expectStates({ overview, host }: Pages, expected: string, timeout = 15_000) {
  await expect.poll(() => state(overview), { message: 'overview', timeout }).toBe(expected)
  await expect.poll(() => state(host), { message: 'host page', timeout }).toBe(expected)
}

/** Both pages are live again, their values go on, and the chart has the rows of the whole time. */
async function expectComplete(pages: Pages, before: { points: number; atMs: number }) {
  const { overview, host } = pages
  await expectStates(pages, 'live', 40_000)
  await overview.getByText(RETRYING).waitFor({ state: 'detached' })
  const shown = await values(overview)
  await expect.poll(() => values(overview)).not.toBe(shown)
  // A busy machine misses some ticks.
  const rows = ((performance.now() - before.atMs) / INTERVAL_MS) * 0.7
  // The agent of the host may wait longer for its next attempt than the page.
  const expected = Math.min(before.points + rows, MAX_ROWS)
  await expect.poll(() => points(host), { message: 'rows', timeout: 40_000 }).toBeGreaterThan(expected)
  await expect.poll(() => cpu(host).getAttribute('data-gaps'), { message: 'gaps' }).toBe('0')
}

const now = async ({ host }: Pages) => ({ points: await points(host), atMs: performance.now() })

describe('an outage', () => {
  it('by a restart of the hub', async () => {
    const pages = await openPages()
    const before = await now(pages)
    await site.killHub()
    await expectStates(pages, 'reconnecting')
    await pages.overview.getByText(RETRYING).waitFor()
    expect(await pages.overview.locator('tr[data-host]').count()).toBe(4)
    expect(await points(pages.host)).toBeGreaterThanOrEqual(before.points)
    await checkPage(pages.host, 'host-reconnecting')
    await pages.host.waitForTimeout(OUTAGE_MS)
    await site.startHub()
    await expectComplete(pages, before)
    await pages.close()
  })

  it('by a cut network', async () => {
    const pages = await openPages()
    const before = await now(pages)
    proxy.cut()
    await expectStates(pages, 'reconnecting')
    await pages.overview.getByText(RETRYING).waitFor()
    expect(await pages.overview.locator('tr[data-host]').count()).toBe(4)
    await checkPage(pages.overview, 'overview-unreachable')
    await pages.host.waitForTimeout(OUTAGE_MS)
    proxy.restore()
    await expectComplete(pages, before)
    await pages.close()
  })

  it('by a device without network', async () => {
    const pages = await openPages()
    const before = await now(pages)
    const contexts: BrowserContext[] = [pages.overview.context(), pages.host.context()]
    await Promise.all(contexts.map((context) => context.setOffline(true)))
    await expect.poll(() => state(pages.overview)).toBe('reconnecting')
    await pages.host.waitForTimeout(OUTAGE_MS)
    await Promise.all(contexts.map((context) => context.setOffline(false)))
    await expectComplete(pages, before)
    await pages.close()
  })

  it('by a network that swallows everything', async () => {
    const pages = await openPages({ prepare: (page) => page.clock.install() })
    const before = await now(pages)
    const forward = (ms: number) => Promise.all([pages.overview.clock.fastForward(ms), pages.host.clock.fastForward(ms)])
    proxy.silence()
    // The page asks the hub for a sign of life before it gives the connection up.
    await forward(25_000)
    await forward(12_000)
    await expectStates(pages, 'reconnecting')
    proxy.restore()
    // Attempts that began in the silent network end by their timeout.
    await forward(12_000)
    await expectComplete(pages, before)
    await pages.close()
  })
})

it('a slow network delays the page, and it stays live', async () => {
  proxy.slow({ delayMs: 200, bytesPerSecond: 50_000 })
  const states = (page: Page) =>
    page.addInitScript(() => {
      const seen = new Set<string>()
      Object.assign(window, { seenStates: seen })
      setInterval(() => seen.add(document.querySelector<HTMLElement>('.state')?.dataset.state ?? ''), 50)
    })
  const pages = await openPages({ prepare: states })
  const clear = (page: Page) => page.evaluate(() => (window as any).seenStates.clear())
  await Promise.all([clear(pages.overview), clear(pages.host)])
  const before = await now(pages)
  await pages.host.waitForTimeout(OUTAGE_MS)
  for (const page of [pages.overview, pages.host]) {
    expect(await page.evaluate(() => [...(window as any).seenStates])).toEqual(['live'])
  }
  await expectComplete(pages, before)
  await pages.close()
  proxy.slow(undefined)
})

describe('a tab', () => {
  it('sleeps, and comes back complete', async () => {
    const pages = await openPages()
    const before = await now(pages)
    const setState = (name: 'frozen' | 'active') =>
      Promise.all(
        [pages.overview, pages.host].map(async (page) => {
          const session = await page.context().newCDPSession(page)
          await session.send('Page.setWebLifecycleState', { state: name })
        }),
      )
    await setState('frozen')
    await new Promise((done) => setTimeout(done, OUTAGE_MS))
    await setState('active')
    await expectComplete(pages, before)
    await pages.close()
  })

  it('is hidden, asks for nothing and draws nothing, and comes back complete', async () => {
    const pages = await openPages()
    await pages.host.goto(`${proxyUrl}${hostPath}?range=15m`)
    await expect.poll(() => points(pages.host)).toBeGreaterThan(5)
    const setHidden = (page: Page, hidden: boolean) =>
      page.evaluate((isHidden) => {
        Object.defineProperty(document, 'hidden', { configurable: true, get: () => isHidden })
        Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => (isHidden ? 'hidden' : 'visible') })
        document.dispatchEvent(new Event('visibilitychange'))
      }, hidden)
    const all = [pages.overview, pages.host]
    await Promise.all(all.map((page) => setHidden(page, true)))
    // A timer of before sends its request, and requests are answered.
    await pages.host.waitForTimeout(2_500)
    const requests: string[] = []
    for (const page of all) page.on('request', (request) => requests.push(request.url()))
    const before = await now(pages)
    // The range of 15 minutes is loaded again each five seconds.
    await pages.host.waitForTimeout(6_000)
    expect(requests).toEqual([])
    expect(await points(pages.host)).toBe(before.points)
    await Promise.all(all.map((page) => setHidden(page, false)))
    await expect.poll(() => points(pages.host), { timeout: 3_000 }).toBeGreaterThan(before.points)
    await expect.poll(() => state(pages.overview)).toBe('live')
    const shown = await values(pages.overview)
    await expect.poll(() => values(pages.overview)).not.toBe(shown)
    await pages.close()
  })
})

describe.each([
  ['ahead', HOUR_MS],
  ['behind', -HOUR_MS],
])('a clock that is an hour %s', (word, offsetMs) => {
  const isWrong = (page: Page) => page.clock.install({ time: Date.now() + offsetMs })

  it('is corrected on all pages, which say so, until it is set right', async () => {
    const pages = await openPages({ prepare: isWrong })
    const before = await now(pages)
    for (const page of [pages.overview, pages.host])
      await page.getByText(new RegExp(`The clock of this device is .+ ${word}; all times are those of the hub`)).waitFor()
    expect(await pages.overview.locator('main').textContent()).not.toMatch(/No data for/)
    await expectComplete(pages, before)
    // Set right while the page is open.
    await Promise.all([pages.overview, pages.host].map((page) => page.clock.setSystemTime(Date.now())))
    for (const page of [pages.overview, pages.host]) await page.getByText('The clock of this device').waitFor({ state: 'detached' })
    await expectComplete(pages, before)
    // History: the range ends at the time of the hub.
    await pages.host.goto(`${proxyUrl}${hostPath}?range=15m`)
    await expect.poll(() => points(pages.host)).toBeGreaterThan(5)
    await pages.close()
  })
})

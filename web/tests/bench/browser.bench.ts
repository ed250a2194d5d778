// Costs of the dashboard in a browser: live charts, overviews of large fleets, first load, a range of 30 days. The results
// are printed, never asserted. Hub and senders are real processes.
//
// PERFWATCH_BENCH_CHARTS_S     seconds of live charts (600)
// PERFWATCH_BENCH_OVERVIEW_S   seconds of each overview (60)
// PERFWATCH_BENCH_FLEETS       numbers of hosts of the overviews (200,2000)
// PERFWATCH_BENCH_BACKFILL     history of the host with the long range (30d)
// PERFWATCH_BENCH_TINY         a run of seconds, which shows that the benchmark works
// E2E_BIN                      binary of the hub (target/debug/perfwatch)
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { ADMIN, openBrowser, pageErrors, TestSite } from '../e2e/support'
import { type Cost, countFrames, countTransfer, instrument, Meter } from './meter'

const IS_TINY = process.env.PERFWATCH_BENCH_TINY !== undefined
/** Value of an environment variable, with a default for a tiny run and for a whole one. */
const setting = (name: string, tiny: string, whole: string) => process.env[`PERFWATCH_BENCH_${name}`] ?? (IS_TINY ? tiny : whole)
const CHARTS_S = Number(setting('CHARTS_S', '3', '600'))
const OVERVIEW_S = Number(setting('OVERVIEW_S', '3', '60'))
const FLEETS = setting('FLEETS', '4', '200,2000').split(',').map(Number)
const BACKFILL = setting('BACKFILL', '10m', '30d')
const REPETITIONS = Number(setting('REPETITIONS', '1', '7'))
/** Time after the first values in which caches and compiled code settle, in seconds. */
const WARM_UP_S = IS_TINY ? 1 : 15
const FRAMES_S = IS_TINY ? 1 : 20

const LIVE_INTERVAL_S = 1
const FLEET_INTERVAL_S = 2
/** The long range shows roll-ups, to which the interval makes no difference; the backfill is shorter. */
const PAST_INTERVAL_S = 10
const MAX_BACKFILL_MS = 1_200_000
/** Age of the newest snapshot of a host that sends live. */
const MAX_LAG_MS = 30_000
/** Seeds of the fleets: equal seeds would be equal hosts. */
const [LIVE_SEED, PAST_SEED] = ['1', '2']
/** A screen on which the first ten charts of the host page are visible. */
const TALL = { width: 1440, height: 2300 }
const DESKTOP = { width: 1440, height: 900 }

/** The senders share one address and one token. */
const HUB_ENV = {
  PERFWATCH_HUB_DISK_BUDGET: '20GB',
  PERFWATCH_HUB_LIMITS_AGENT_REQUESTS_PER_SECOND: '100000',
  PERFWATCH_HUB_LIMITS_INGEST_REQUESTS_PER_SECOND: '1000000',
  PERFWATCH_HUB_LIMITS_API_REQUESTS_PER_SECOND: '100000',
}

let browser: Browser
const lines: string[] = []
beforeAll(async () => (browser = await openBrowser()))
afterAll(async () => {
  await browser?.close()
  console.log(['', 'browser benchmark, headless Chromium without GPU:', ...lines, ''].join('\n'))
})

const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1)
const kilobytes = (bytes: number) => (bytes / 1e3).toFixed(1)
const median = (values: number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!

/** Line with the costs; a tick is a message of the hub or the answer to a poll. */
function report(title: string, cost: Cost, tickS: number, frames: { frames: number; dropped: number; longestMs: number }) {
  const { seconds, longTasks } = cost
  const perTick = (msPerSecond: number) => (msPerSecond * tickS).toFixed(1)
  const longest = longTasks.length ? `, longest ${Math.max(...longTasks).toFixed(0)} ms` : ''
  lines.push(
    `  ${title}, ${seconds.toFixed(0)} s`,
    `    CPU            ${cost.rendererPercent.toFixed(1)} % of a core (page), ${cost.browserPercent.toFixed(1)} % (whole browser)`,
    `    per ${String(tickS).padEnd(2)}s tick    script ${perTick(cost.scriptMs)} ms, style and layout ${perTick(cost.layoutMs)} ms, ` +
      `all tasks ${perTick(cost.taskMs)} ms`,
    `    long tasks     ${longTasks.length}${longest}`,
    `    frames         ${frames.dropped} of ${frames.frames + frames.dropped} dropped, longest ${frames.longestMs.toFixed(0)} ms`,
    `    heap           ${megabytes(cost.heapBefore)} MB to ${megabytes(cost.heapAfter)} MB`,
  )
}

async function open(site: TestSite, viewport: { width: number; height: number }, hasSession = true) {
  const context = await browser.newContext({ viewport, colorScheme: 'dark' })
  await instrument(context)
  if (hasSession) await site.logIn(context)
  const page = await context.newPage()
  const errors = pageErrors(page)
  return { context, page, errors }
}

async function close(context: BrowserContext, errors: string[]) {
  await context.close()
  expect(errors).toEqual([])
}

/** Costs of an open page over a time, then its frames. */
async function measure(page: Page, title: string, seconds: number, tickS: number) {
  await page.waitForTimeout(WARM_UP_S * 1_000)
  const meter = await Meter.attach(browser, page)
  await meter.start()
  await page.waitForTimeout(seconds * 1_000)
  const cost = await meter.stop()
  report(title, cost, tickS, await countFrames(page, FRAMES_S))
}

/** Waits until all charts on the screen have points. Returns the milliseconds since the navigation, and their number. */
async function waitForCharts(page: Page): Promise<{ ms: number; count: number }> {
  const handle = await page.waitForFunction(
    () => {
      const isOnScreen = (chart: Element) => chart.getBoundingClientRect().top < innerHeight
      const charts = [...document.querySelectorAll<HTMLElement>('section.chart')].filter(isOnScreen)
      const areDrawn = charts.length > 0 && charts.every(({ dataset }) => Number(dataset.points) > 0)
      return areDrawn && { ms: performance.now(), count: charts.length }
    },
    undefined,
    { polling: 'raf', timeout: 60_000 },
  )
  return (await handle.jsonValue()) as { ms: number; count: number }
}

interface ListedHost {
  id: string
  name: string
  last_snapshot_ms: number | null
}

async function listHosts(site: TestSite): Promise<ListedHost[]> {
  const hosts: ListedHost[] = []
  let after: string | null = ''
  while (after !== null) {
    const query: string = after ? `?after=${encodeURIComponent(after)}` : ''
    const page: { hosts: ListedHost[]; next: string | null } = await site.request('GET', `/api/v1/hosts${query}`)
    hosts.push(...page.hosts)
    after = page.next
  }
  return hosts
}

/** Waits until the newest snapshot of every host is recent: the backfill has ended. Returns the hosts. */
async function waitForFleet(site: TestSite, count: number): Promise<ListedHost[]> {
  let hosts: ListedHost[] = []
  const isRecent = ({ last_snapshot_ms: newest }: ListedHost) => Date.now() - (newest ?? 0) < MAX_LAG_MS
  const check = async () => {
    hosts = await listHosts(site)
    if (hosts.filter(isRecent).length !== count) throw new Error(`waiting for ${count} hosts`)
  }
  await vi.waitFor(check, { timeout: MAX_BACKFILL_MS, interval: 500 })
  return hosts
}

describe('host page', () => {
  const site = new TestSite(true, HUB_ENV)
  let [live, past] = ['', '']
  beforeAll(async () => {
    await site.startHub()
    const fleet = (seed: string, seconds: number) => ['--hosts', '1', '--seed', seed, '--interval', `${seconds}s`]
    site.startSimulation(...fleet(PAST_SEED, PAST_INTERVAL_S), '--backfill', BACKFILL)
    const [first] = await waitForFleet(site, 1)
    past = first!.id
    site.startSimulation(...fleet(LIVE_SEED, LIVE_INTERVAL_S), '--backfill', '10m')
    live = (await waitForFleet(site, 2)).find(({ id }) => id !== past)!.id
  })
  afterAll(() => site.stop())

  it('first load', async () => {
    const { context, page, errors } = await open(site, DESKTOP, false)
    const bytes = await countTransfer(context, page)
    await page.goto(site.url)
    await page.getByLabel('Name').fill(ADMIN.name)
    await page.getByLabel('Password').fill(ADMIN.password)
    await page.getByRole('button', { name: 'Log in' }).click()
    await page.locator('tr[data-host]').first().waitFor()
    await page.waitForLoadState('networkidle')
    await close(context, errors)
    lines.push(`  first load      ${kilobytes(bytes.files)} kB of files, ${kilobytes(bytes.requests)} kB of data (login, then overview)`)
  })

  it.each([
    ['overview', () => '/'],
    ['host page, 5 minutes live', () => `/hosts/${live}`],
    [`host page, history of ${BACKFILL}`, () => `/hosts/${past}?range=30d`],
  ])('time to the charts: %s', async (title, path) => {
    const [first, all]: [number[], number[]] = [[], []]
    for (let n = 0; n < REPETITIONS; n++) {
      const { context, page, errors } = await open(site, DESKTOP)
      await page.goto(site.url + path())
      const line = await page.waitForFunction(() => window.benchmark.firstLineMs, undefined, { polling: 'raf' })
      first.push(await line.jsonValue())
      if (path() !== '/') all.push((await waitForCharts(page)).ms)
      await close(context, errors)
    }
    const text = (values: number[]) => `${median(values).toFixed(0)} ms (at most ${Math.max(...values).toFixed(0)})`
    lines.push(`  ${title}: first chart after ${text(first)}${all.length ? `, all charts on the screen after ${text(all)}` : ''}`)
  })

  it('live charts', async () => {
    const { context, page, errors } = await open(site, TALL)
    await page.goto(`${site.url}/hosts/${live}`)
    const { count } = await waitForCharts(page)
    await measure(page, `${count} live charts at ${LIVE_INTERVAL_S} s`, CHARTS_S, LIVE_INTERVAL_S)
    await close(context, errors)
  })
})

describe.each(FLEETS)('overview of %i hosts', (count) => {
  const site = new TestSite(true, HUB_ENV)
  beforeAll(async () => {
    await site.startHub()
    site.startSimulation('--hosts', String(count), '--interval', `${FLEET_INTERVAL_S}s`, '--backfill', IS_TINY ? '10s' : '2m')
    await waitForFleet(site, count)
  })
  afterAll(() => site.stop())

  it.each(['table', 'map'])('%s', async (view) => {
    const { context, page, errors } = await open(site, DESKTOP)
    await page.goto(`${site.url}/?view=${view}`)
    const content = view === 'table' ? page.locator('tr[data-host]').first() : page.getByRole('listbox', { name: /^Host map/ })
    await content.waitFor()
    await measure(page, `overview of ${count} hosts as ${view}`, OVERVIEW_S, FLEET_INTERVAL_S)
    await close(context, errors)
  })
})

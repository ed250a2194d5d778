// The overview at a past second, and its time range, in a real browser.
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkPage, closePage, openBrowser, openPage, stableBox, TestSite, type PageOptions } from './support'

const VIEWER = { name: 'vera', password: 'it rains all day' }
const INTERVAL_MS = 10_000
const ROWS = 240
const SCREENS = [
  ['dark', 1440],
  ['light', 1440],
  ['dark', 390],
  ['light', 390],
] as const
const HOSTS = ['db-01', 'web-01', 'web-02']

let browser: Browser
let site: TestSite
/** Time of the first row: 40 minutes before the last. */
let startMs = 0

const usageOf = (host: number, row: number) => (row + 20 * host) % 100

/** Rows of all hosts; `web-02` ends after half of them. */
async function sendRows() {
  for (const [at, host] of HOSTS.entries()) {
    const rows = Array.from({ length: at === 2 ? ROWS / 2 : ROWS }, (_, row) => ({
      host,
      boot: `${at}1111111-2222-4333-8444-555555555555`,
      seq: row,
      timestamp: startMs + row * INTERVAL_MS,
      interval_ms: INTERVAL_MS,
      cpu: { usage: usageOf(at, row) },
      memory: { used: 40, total: 100, used_percent: 40 },
      network: { total: { rx_bytes: 1_000_000, tx_bytes: 500_000 } },
      filesystem: { mount: { '/data': { used_percent: 40, used: 40e9, size: 100e9 } } },
      processes: {
        top: [
          {
            pid: 7,
            name: `job-${row}`,
            user: 'root',
            cpu_percent: usageOf(at, row),
            memory_bytes: 1e8,
            threads: 1,
            command: `job ${row} of ${host}`,
          },
        ],
      },
    }))
    await site.request('POST', '/ingest/metrics', rows)
  }
}

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  startMs = Math.floor((Date.now() - ROWS * INTERVAL_MS) / 60_000) * 60_000
  await site.request('POST', '/api/v1/rules', {
    name: 'CPU is high',
    severity: 'critical',
    enabled: true,
    hosts: {},
    for: '0s',
    condition: { kind: 'threshold', metric: 'cpu.usage', threshold: 95 },
  })
  await sendRows()
  await site.request('PUT', '/api/v1/hosts/db-01/tags', { tags: ['role=db'] })
  await site.createUser({ ...VIEWER, role: 'viewer', host_tags: ['role=db'] })
}, 120_000)
afterAll(async () => {
  await browser?.close()
  await site?.stop()
})

const open = (path: string, options: PageOptions = {}) => openPage(browser, site, path, options)
const timeOf = (row: number) => startMs + row * INTERVAL_MS
const pathAt = (row: number, more = '') => `/?at=${timeOf(row)}&group=none&sort=name-asc${more}`
const cpu = (page: Page) => page.locator('tr[data-host] td.cpu').allTextContents()
/** Number of drawn pixels of the lines in the host table. */
const linePixels = (page: Page) =>
  page.locator('canvas.courses').evaluate((element) => {
    const { width, height } = element as HTMLCanvasElement
    const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true })!
    copy.drawImage(element as HTMLCanvasElement, 0, 0)
    const { data } = copy.getImageData(0, 0, width, height)
    return data.filter((value, index) => index % 4 === 3 && value > 0).length
  })
const parameter = (page: Page, name: string) => new URL(page.url()).searchParams.get(name)
const bar = (page: Page) => page.getByRole('region', { name: 'Replay' })

describe('replay', () => {
  it.each(SCREENS)('shows the values of a second in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open(pathAt(60), { scheme, width })
    await expect.poll(() => cpu(page)).toEqual(['60.0%', '80.0%', '0.0%'])
    await bar(page).getByText('samples of that second').waitFor()
    await bar(page).getByText('Forecasts of full filesystems: made for the present only').waitFor()
    await page.getByRole('region', { name: 'Incidents at this time' }).waitFor()
    const top = page.getByRole('region', { name: 'Top processes' })
    expect(await top.getByRole('listitem').first().textContent()).toContain('job-60')
    await expect.poll(() => page.locator('.state').getAttribute('data-state')).toBe('replay')
    await checkPage(page, `replay-${scheme}-${width}`)
    await closePage(context, errors)
  })

  it('steps by seconds and minutes, plays, and goes live', async () => {
    const { context, page, errors } = await open(pathAt(60))
    await expect.poll(() => cpu(page).then(([first]) => first)).toBe('60.0%')
    await bar(page).getByRole('button', { name: 'Forward 1 min' }).click()
    await expect.poll(() => cpu(page).then(([first]) => first)).toBe('66.0%')
    await bar(page).getByRole('button', { name: 'Back 1 s', exact: true }).click()
    await expect.poll(() => cpu(page).then(([first]) => first)).toBe('65.0%')
    await page.keyboard.press('Escape')
    await page.locator('h1').click()
    await page.keyboard.press('ArrowRight')
    await page.keyboard.press('Shift+ArrowLeft')
    await expect.poll(() => parameter(page, 'at')).toBe(String(timeOf(60)))
    await expect.poll(() => cpu(page).then(([first]) => first)).toBe('60.0%')
    await bar(page).getByRole('combobox', { name: 'Speed' }).click()
    await page.getByRole('option', { name: '10×' }).click()
    await bar(page).getByRole('button', { name: 'Play' }).click()
    await expect.poll(() => cpu(page).then(([first]) => first), { timeout: 15_000 }).toBe('62.0%')
    await bar(page).getByRole('button', { name: 'Pause' }).click()
    const shown = parameter(page, 'at')
    const requests: string[] = []
    page.on('request', (request) => requests.push(new URL(request.url()).pathname))
    await page.waitForTimeout(3_000)
    expect(requests.filter((path) => path.startsWith('/api/v1/overview'))).toEqual([])
    expect(parameter(page, 'at')).toBe(shown)
    await bar(page).getByRole('button', { name: 'Live' }).click()
    await bar(page).waitFor({ state: 'detached' })
    expect(parameter(page, 'at')).toBeNull()
    await page.getByRole('region', { name: 'Activity' }).waitFor()
    await page.goBack()
    await bar(page).waitFor()
    await closePage(context, errors)
  })

  it('draws the minutes before the second in the table and in the map', async () => {
    const { context, page, errors } = await open(pathAt(60))
    const queries: string[] = []
    page.on('request', (request) => {
      if (new URL(request.url()).pathname === '/api/v1/query') queries.push(request.postData() ?? '')
    })
    await expect.poll(() => linePixels(page)).toBeGreaterThan(500)
    // The next seconds are in the same answer.
    const count = queries.length
    await bar(page).getByRole('button', { name: 'Forward 1 s', exact: true }).click()
    await expect.poll(() => parameter(page, 'at')).toBe(String(timeOf(60) + 1_000))
    await expect.poll(() => linePixels(page)).toBeGreaterThan(500)
    expect(queries.length).toBe(count)
    await page.getByRole('button', { name: 'Map' }).click()
    await page.getByRole('region', { name: 'Hosts' }).locator('canvas').waitFor()
    await checkPage(page, 'replay-map')
    await closePage(context, errors)
  })

  it('opens from the health strip by click and keys, and leads to hosts at that second', async () => {
    const { context, page, errors } = await open('/?range=1h&group=none&sort=name-asc')
    const strip = page.getByRole('slider', { name: 'Health' })
    await strip.waitFor()
    await expect.poll(() => strip.getAttribute('aria-valuetext')).toContain('Healthy')
    const box = await stableBox(strip)
    await strip.click({ position: { x: box.width * 0.8, y: 20 } })
    await bar(page).waitFor()
    const clicked = Number(parameter(page, 'at'))
    // 80 % of an hour: twelve minutes before now.
    expect(Math.abs(Date.now() - clicked - 12 * 60_000)).toBeLessThan(120_000)
    await page.goBack()
    await bar(page).waitFor({ state: 'detached' })
    await strip.focus()
    for (let step = 0; step < 20; step++) await page.keyboard.press('ArrowLeft')
    await page.keyboard.press('Enter')
    await bar(page).waitFor()
    const chosen = parameter(page, 'at')!
    await page.locator('tr[data-host] a.host').first().click()
    await expect.poll(() => new URL(page.url()).pathname).toMatch(/^\/hosts\//)
    expect(parameter(page, 'at')).toBe(chosen)
    await page.goBack()
    await bar(page).waitFor()
    await closePage(context, errors)
  })

  it('opens by key and goes to a typed time', async () => {
    const { context, page, errors } = await open('/?group=none&sort=name-asc')
    await page.getByRole('button', { name: 'Replay…' }).waitFor()
    await page.keyboard.press('t')
    const field = bar(page).getByLabel('Time')
    await field.waitFor()
    await expect.poll(() => field.evaluate((element) => element === document.activeElement)).toBe(true)
    const text = await page.evaluate((ms) => {
      const local = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000)
      return local.toISOString().slice(0, 19)
    }, timeOf(30))
    await field.fill(text)
    await field.blur()
    await expect.poll(() => parameter(page, 'at')).toBe(String(timeOf(30)))
    await expect.poll(() => cpu(page)).toEqual(['30.0%', '50.0%', '70.0%'])
    await closePage(context, errors)
  })

  it('shows incidents of the time, and the reason of an impossible time', async () => {
    const { context, page, errors } = await open(pathAt(97))
    const incidents = page.getByRole('region', { name: 'Incidents at this time' })
    await incidents.getByRole('link', { name: 'CPU is high' }).first().waitFor()
    await checkPage(page, 'replay-incident')
    await page.goto(`${site.url}/?at=${Date.now() + 3_600_000}`)
    await page.getByText('must not be after the current time').waitFor()
    expect(await page.locator('tr[data-host]').count()).toBe(0)
    await checkPage(page, 'replay-future')
    await bar(page).getByRole('button', { name: 'Live' }).click()
    await page.locator('tr[data-host]').first().waitFor()
    await closePage(context, errors)
  })

  it('limited viewer replays own hosts only', async () => {
    const { context, page, errors } = await open(pathAt(60), { account: VIEWER })
    await expect.poll(() => cpu(page)).toEqual(['60.0%'])
    expect(await page.locator('main').textContent()).not.toContain('web-')
    await checkPage(page, 'replay-limited')
    await closePage(context, errors)
  })
})

describe('comparison on a host page', () => {
  const host = (path: string, more: string) => `/hosts/db-01${path}?at=${timeOf(60)}&compare=web-01${more}`

  it.each(SCREENS)('shows processes of two hosts side by side in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open(host('/processes', ''), { scheme, width })
    const table = page.getByRole('region', { name: 'Compared processes' })
    await expect.poll(() => table.getByRole('row', { name: /job-60/ }).textContent()).toMatch(/60\.0%.*80\.0%.*−20\.0%/)
    await checkPage(page, `compare-processes-${scheme}-${width}`)
    await closePage(context, errors)
  })

  it('compares sums of a range, events and facts, and ends on request', async () => {
    const { context, page, errors } = await open(host('/processes', '&sum=1'))
    const table = page.getByRole('region', { name: 'Compared processes' })
    // One process over the range, whose name is the newest.
    await expect.poll(() => table.getByRole('row', { name: /job-/ }).textContent()).toMatch(/%.*%.*[+−].*%/)
    await table.getByText(/^db-01, .* – .* compared with web-01, .* – /).waitFor()
    await page.getByRole('navigation', { name: 'db-01' }).getByRole('link', { name: 'Events' }).click()
    const events = page.getByRole('region', { name: 'Events' }).getByRole('listitem')
    await events.filter({ hasText: 'web-01' }).first().waitFor()
    await checkPage(page, 'compare-events')
    await page.getByRole('navigation', { name: 'db-01' }).getByRole('link', { name: 'Connection' }).click()
    const sending = page.getByRole('region', { name: 'Data' })
    await sending.getByText('web-01').first().waitFor()
    await checkPage(page, 'compare-connection')
    await page.getByRole('navigation', { name: 'db-01' }).getByRole('link', { name: 'Details' }).click()
    const system = page.getByRole('region', { name: 'System' })
    await system.getByText('web-01').first().waitFor()
    await checkPage(page, 'compare-details')
    await system.getByRole('button', { name: 'Compare: web-01' }).click()
    await page.getByRole('button', { name: 'End comparison' }).click()
    await expect.poll(() => parameter(page, 'compare')).toBeNull()
    await closePage(context, errors)
  })

  it('says that nothing is recorded of the earlier time', async () => {
    const { context, page, errors } = await open(`/hosts/db-01/processes?at=${timeOf(60)}&compare=day`)
    await page.getByText(/no data for this host/i).waitFor()
    await page
      .getByRole('region', { name: 'Compared processes' })
      .getByRole('row', { name: /job-60/ })
      .waitFor()
    await closePage(context, errors)
  })
})

describe('time range', () => {
  it.each(SCREENS)('charts show the range of the address in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open('/', { scheme, width })
    const range = page.getByRole('combobox', { name: 'Time range' })
    await range.click()
    await page.getByRole('option', { name: '7 days' }).click()
    await expect.poll(() => parameter(page, 'range')).toBe('7d')
    const strip = page.getByRole('slider', { name: 'Health' })
    await expect.poll(() => strip.getAttribute('aria-valuetext')).toContain('last 7 d')
    await checkPage(page, `overview-range-${scheme}-${width}`)
    await page.reload()
    await expect.poll(() => strip.getAttribute('aria-valuetext')).toContain('last 7 d')
    await range.click()
    await page.getByRole('option', { name: '24 hours' }).click()
    await expect.poll(() => parameter(page, 'range')).toBeNull()
    await closePage(context, errors)
  })

  it('has an hour in detail, custom ranges and steps to earlier times', async () => {
    const { context, page, errors } = await open('/?range=1h')
    const cpuChart = page.getByRole('region', { name: 'Fleet CPU' })
    await cpuChart.waitFor()
    await page.getByRole('button', { name: 'Earlier' }).click()
    await expect.poll(() => parameter(page, 'from')).not.toBeNull()
    const width = Number(parameter(page, 'to')) - Number(parameter(page, 'from'))
    expect(Math.abs(width - 3_600_000)).toBeLessThan(1_000)
    await page.getByRole('button', { name: 'Later' }).click()
    await expect.poll(() => parameter(page, 'from')).toBeNull()
    await page.keyboard.press('c')
    const dialog = page.getByRole('dialog', { name: 'Time range' })
    await dialog.getByRole('button', { name: 'Apply' }).click()
    await expect.poll(() => parameter(page, 'from')).not.toBeNull()
    await closePage(context, errors)
  })
})

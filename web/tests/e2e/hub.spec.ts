// Hub health in a real browser: own series, path, store, tasks, connections, requests, and the backtest of a hub rule.
import { type ChildProcess, spawn } from 'node:child_process'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkPage, closePage, openBrowser, openPage, type PageOptions, TestSite } from './support'

const VIEWER = { name: 'vera', password: 'it rains all day' }
const LIMITED = { name: 'lea', password: 'it rains all day' }
const SCREENS = [
  ['dark', 1440],
  ['light', 1440],
  ['dark', 390],
  ['light', 390],
] as const
const BINARY = process.env.E2E_BIN ?? `${import.meta.dirname}/../../../target/debug/perfwatch`

let browser: Browser
let site: TestSite
let fleet: ChildProcess

interface Series {
  t: number[]
  series: { metric: string; instance: string; v: (number | null)[] }[]
}
const series = (metric: string) => site.request<Series>('GET', `/api/v1/system/series?metric=${metric}&from=-10m`)

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  fleet = spawn(BINARY, ['simulate', '--hub', site.url, '--token', site.token, '--hosts', '6', '--interval', '2s'], { stdio: 'ignore' })
  await site.createUser({ ...VIEWER, role: 'viewer' })
  await site.createUser({ ...LIMITED, role: 'viewer', host_tags: ['role=web'] })
  // The first record is empty of rates; charts need a few.
  while ((await series('hub.ingest.snapshots')).t.length < 4) await new Promise((done) => setTimeout(done, 1_000))
}, 180_000)
afterAll(async () => {
  fleet?.kill()
  await browser?.close()
  await site?.stop()
})

const open = (path: string, options: PageOptions = {}) => openPage(browser, site, path, options)

describe('hub health', () => {
  it.each(SCREENS)('path, charts, store, tasks, connections and requests in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open('/hub', { scheme, width })
    const path = page.getByRole('region', { name: 'Sample path' })
    await expect.poll(() => path.textContent()).toMatch(/Received[\d.]+ \/s/)
    await page.getByText('Healthy').waitFor()
    const cpu = page.getByRole('region', { name: /^Hub CPU/ })
    await expect.poll(() => cpu.getAttribute('data-points').then(Number)).toBeGreaterThan(2)
    await page.getByRole('cell', { name: 'Seal blocks' }).waitFor()
    await page.getByRole('cell', { name: 'admin' }).first().waitFor()
    await page.getByText('POST /ingest/metrics').waitFor()
    await checkPage(page, `hub-${scheme}-${width}`)
    await closePage(context, errors)
  })

  it('records rates, memory and the metrics of hub rules', async () => {
    const answer = await series('hub.*')
    const newest = (metric: string) => answer.series.find((one) => one.metric === metric)?.v.at(-1) ?? null
    expect(newest('hub.memory.resident')).toBeGreaterThan(10 * 2 ** 20)
    expect(newest('hub.ingest.snapshots')).toBeGreaterThan(0.5)
    expect(newest('hub.ingest.ack_p99')).toBeGreaterThan(0)
    expect(newest('hub.hosts')).toBe(6)
    expect(newest('hub.rules.ingest_blocked')).toBe(0)
    // No list of hosts contains the hub.
    const hosts = await site.request<{ total: number }>('GET', '/api/v1/hosts?limit=1')
    expect(hosts.total).toBe(6)
    const rule = {
      name: 'Budget',
      severity: 'warning',
      condition: { kind: 'hub', hub_metric: 'disk_budget_used', compare: 'above', threshold: 0.000001 },
    }
    const backtest = await site.request<{ hosts: { value_count: number; firing_intervals: unknown[] }[] }>(
      'POST',
      '/api/v1/rules/backtest',
      { rule, from: '-10m' },
    )
    expect(backtest.hosts[0]?.value_count).toBeGreaterThan(2)
  })

  it('range is part of the address and the shortcut opens the page', async () => {
    const { context, page, errors } = await open('/hub?range=6h')
    await page.getByRole('combobox', { name: 'Time range' }).getByText('Last 6 hours').waitFor()
    await page.getByRole('combobox', { name: 'Time range' }).click()
    await page.getByRole('option', { name: 'Last 24 hours' }).click()
    await expect.poll(() => new URL(page.url()).searchParams.get('range')).toBe('24h')
    await page.goto(`${site.url}/alerts`)
    await page.locator('main').waitFor()
    await page.keyboard.press('g')
    await page.keyboard.press('u')
    await expect.poll(() => new URL(page.url()).pathname).toBe('/hub')
    await closePage(context, errors)
  })

  it('viewers see no connections of others, limited users nothing', async () => {
    const viewer = await open('/hub', { account: VIEWER })
    await viewer.page.getByText('Only administrators see the connections').waitFor()
    await checkPage(viewer.page, 'hub-viewer')
    await closePage(viewer.context, viewer.errors)
    const limited = await open('/hub', { account: LIMITED })
    await limited.page.getByText('Limited account').waitFor()
    await checkPage(limited.page, 'hub-limited')
    await closePage(limited.context, limited.errors)
  })

  it('a failing request is shown with a retry', async () => {
    const { context, page } = await open('/hub')
    await page.route('**/api/v1/system/series*', (route) =>
      route.fulfill({ status: 503, json: { error: { code: 'store_unavailable', message: 'x' } } }),
    )
    await page.goto(`${site.url}/hub?range=15m`)
    await page.getByText('The database is unavailable').waitFor()
    await page.getByRole('cell', { name: 'Seal blocks' }).waitFor()
    await page.unroute('**/api/v1/system/series*')
    await page.getByRole('button', { name: 'Retry' }).click()
    await page.getByRole('region', { name: /^Hub CPU/ }).waitFor()
    await context.close()
  })
})

// Public status pages in a real browser: settings page, page of a link, end of links.
import { type ChildProcess, spawn } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkPage, closePage, openBrowser, openPage, pageErrors, type PageOptions, TestSite } from './support'

const OPERATOR = { name: 'olga', password: 'it rains all day' }
const VIEWER = { name: 'vera', password: 'it rains all day' }
const DAY_MS = 86_400_000
const SCREENS = [
  ['dark', 1440],
  ['light', 1440],
  ['dark', 390],
  ['light', 390],
] as const
const BINARY = process.env.E2E_BIN ?? `${import.meta.dirname}/../../../target/debug/perfwatch`
const DIST = join(import.meta.dirname, '../../dist')

interface Hosts {
  hosts: { id: string; name: string }[]
}
interface Link {
  url: string
  page: { id: string }
}

let browser: Browser
let site: TestSite
let fleet: ChildProcess
let ids: string[] = []

const hosts = () => site.request<Hosts>('GET', '/api/v1/hosts')
const content = () => ({
  description: 'Everything that our customers use.',
  groups: [
    { name: 'Services', hosts: ids.slice(0, 3).map((host, index) => ({ host, name: ['Web', 'API', 'Edge'][index] })) },
    { name: 'Data', hosts: [{ host: ids[3], name: 'Database' }] },
  ],
  metrics: ['cpu', 'memory', 'disk', 'load', 'network'],
  incidents: true,
  announcements: [
    {
      title: 'Slow database responses',
      state: 'identified',
      updates: [
        { text: 'A maintenance job is moved.\nNo data is lost.', at_ms: Date.now() - 600_000 },
        { text: 'Queries are slower than usual <b>today</b>.', at_ms: Date.now() - DAY_MS },
      ],
    },
  ],
})
const createPage = (title: string) =>
  site.request<Link>('POST', '/api/v1/status-pages', { title, content: content(), expires_ms: Date.now() + 30 * DAY_MS })

/** Visitor without a session, with the errors that are expected to be none. */
async function visit(url: string, { scheme = 'dark', width = 1440 }: PageOptions = {}) {
  const context = await browser.newContext({ viewport: { width, height: width < 700 ? 844 : 900 }, colorScheme: scheme })
  const page = await context.newPage()
  const errors = pageErrors(page)
  const requests: string[] = []
  page.on('request', (request) => requests.push(new URL(request.url()).pathname))
  await page.goto(url)
  return { context, page, errors, requests }
}
const loaded = (page: Page) => page.getByRole('heading', { name: 'Services', exact: true }).waitFor()

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  const args = ['simulate', '--hub', site.url, '--token', site.token, '--hosts', '4', '--interval', '5s', '--backfill', '4h']
  fleet = spawn(BINARY, args, { stdio: 'ignore' })
  await site.createUser({ ...OPERATOR, role: 'operator' })
  await site.createUser({ ...VIEWER, role: 'viewer' })
  while ((await hosts()).hosts.length < 4) await new Promise((done) => setTimeout(done, 500))
  ids = (await hosts()).hosts.map(({ id }) => id)
}, 180_000)
afterAll(async () => {
  fleet?.kill()
  await browser?.close()
  await site?.stop()
})

describe('settings', () => {
  it('creates a page, shows its link once, switches it off and deletes it', async () => {
    const { context, page, errors } = await openPage(browser, site, '/settings/status-pages', { account: OPERATOR })
    await page.getByText('No status pages').waitFor()
    await checkPage(page, 'status-settings-empty')
    await page.getByRole('button', { name: 'New status page' }).click()
    const drawer = page.getByRole('dialog', { name: 'New status page' })
    await drawer.getByLabel('Title').fill('Example services')
    await drawer.getByRole('button', { name: 'Create page' }).click()
    await drawer.getByText('Add at least one host.').waitFor()
    await drawer.getByRole('button', { name: /Add a host to Services/ }).click()
    const name = (await hosts()).hosts[0]!.name
    await page.getByRole('option', { name }).click()
    await drawer.getByLabel(`Shown name of ${name}`).fill('Website')
    await drawer.getByLabel('CPU usage').check()
    await checkPage(page, 'status-settings-form')
    await drawer.getByRole('button', { name: 'Create page' }).click()
    await page.getByText('Copy it now; it is not shown again').waitFor()
    const url = (await page.getByLabel('Link', { exact: true }).textContent())!.trim()
    expect(url).toMatch(/\/s\/pwp_[0-9a-f]{64}$/)
    await checkPage(page, 'status-settings-link')

    const visitor = await visit(url)
    await visitor.page.getByText('Website').first().waitFor()
    await page.getByRole('button', { name: 'Disable Example services' }).click()
    await page.getByText('Disabled', { exact: true }).waitFor()
    await visitor.page.reload()
    await visitor.page.getByText('This status page is not available').waitFor()
    await page.getByRole('button', { name: 'Enable Example services' }).click()
    await page.getByText('Active', { exact: true }).waitFor()
    await visitor.page.reload()
    await visitor.page.getByText('Website').first().waitFor()

    await page.getByRole('button', { name: 'New link for Example services' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Create link' }).click()
    await expect.poll(() => page.getByLabel('Link', { exact: true }).textContent()).not.toContain(url)
    await visitor.page.reload()
    await visitor.page.getByText('This status page is not available').waitFor()
    await closePage(visitor.context, visitor.errors)

    await page.getByRole('button', { name: 'Edit Example services' }).click()
    const edit = page.getByRole('dialog', { name: 'Edit Example services' })
    expect(await edit.getByLabel(`Shown name of ${name}`).inputValue()).toBe('Website')
    await edit.getByLabel('Title', { exact: true }).fill('Renamed')
    await edit.getByRole('button', { name: 'Add announcement' }).click()
    await edit.getByLabel('Title of announcement 1').fill('Planned work')
    await edit.getByRole('combobox', { name: 'State' }).click()
    await page.getByRole('option', { name: 'Maintenance' }).click()
    await edit.getByLabel('New text').fill('Tonight from 22:00 UTC.')
    await checkPage(page, 'status-settings-announcement')
    await edit.getByRole('button', { name: 'Save' }).click()
    interface Pages {
      pages: { content: { announcements: { title: string; state: string; updates: { at_ms: number; text: string }[] }[] } }[]
    }
    const saved = async () => (await site.request<Pages>('GET', '/api/v1/status-pages')).pages[0]!.content.announcements
    await expect
      .poll(saved)
      .toMatchObject([{ title: 'Planned work', state: 'maintenance', updates: [{ text: 'Tonight from 22:00 UTC.' }] }])
    await page.getByRole('button', { name: 'Delete Renamed' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click()
    await page.getByText('No status pages').waitFor()
    await closePage(context, errors)
  })

  it.each(SCREENS)('lists pages in %s at %i px', async (scheme, width) => {
    const { page: created } = await createPage(`Listed ${scheme} ${width}`)
    const { context, page, errors } = await openPage(browser, site, '/settings/status-pages', { scheme, width })
    await page.getByText(`Listed ${scheme} ${width}`).first().waitFor()
    await checkPage(page, `status-settings-${scheme}-${width}`)
    await site.request('DELETE', `/api/v1/status-pages/${created.id}`)
    await closePage(context, errors)
  })

  it('is hidden from viewers', async () => {
    const { context, page, errors } = await openPage(browser, site, '/settings/status-pages', { account: VIEWER })
    await page.getByText('Access denied').first().waitFor()
    await page.goto(`${site.url}/settings/account`)
    await page.getByRole('link', { name: 'My account' }).waitFor()
    expect(await page.getByRole('link', { name: 'Status pages' }).count()).toBe(0)
    await closePage(context, errors)
  })
})

describe('public page', () => {
  it.each(SCREENS)('in %s at %i px', async (scheme, width) => {
    const { url } = await createPage('Example services')
    const { context, page, errors, requests } = await visit(url, { scheme, width })
    await loaded(page)
    // All days are computed.
    await expect.poll(() => page.locator('.days .computing').count(), { timeout: 60_000 }).toBe(0)
    // Simulated hosts may have open incidents.
    await page
      .getByText(/^(All systems up|Degraded)$/)
      .first()
      .waitFor()
    const web = page.locator('.host').filter({ hasText: 'Web' })
    expect(await web.getByRole('img').getAttribute('aria-label')).toMatch(/^Web: .* in the last 90 days; 0 days with downtime/)
    await web.locator('summary').click()
    await web.getByText(/^First data on \w+ \d+, \d{4}; days before do not count\.$/).waitFor()
    expect(await web.locator('.days .none').count()).toBeGreaterThan(80)
    await page.getByText('Slow database responses').waitFor()
    await page.getByText('Queries are slower than usual <b>today</b>.').waitFor()
    // Values are on a line.
    const lines = (values: Element[]) => values.map((value) => value.getClientRects().length)
    expect(new Set(await page.locator('.values dd .num').evaluateAll(lines))).toEqual(new Set([1]))
    await checkPage(page, `status-public-${scheme}-${width}`)
    // Nothing but its files and its answers.
    const own = /^\/(s\/pwp_\w+|assets\/status-[\w-]+\.(js|css)|appearance\.js|icon\.svg|api\/v1\/public\/status\/pwp_\w+)$/
    expect(requests.filter((path) => !own.test(path))).toEqual([])
    expect(await context.cookies()).toEqual([])
    await closePage(context, errors)
  })

  it('draws the values of the last hour', { timeout: 240_000 }, async () => {
    const { url, page: created } = await createPage('Lines')
    const { context, page, errors } = await visit(url)
    await loaded(page)
    // Two steps of two minutes have values.
    const lines = page.locator('.values .spark path[d*=L]')
    await expect.poll(() => lines.count(), { timeout: 200_000 }).toBeGreaterThan(0)
    expect(await lines.first().getAttribute('d')).toMatch(/^M\d+ [\d.]+L\d+ [\d.]+/)
    await checkPage(page, 'status-public-lines')
    await site.request('DELETE', `/api/v1/status-pages/${created.id}`)
    await closePage(context, errors)
  })

  it('shows a host that is down, and an answer that stays away', async () => {
    const { url, page: created } = await createPage('Shop')
    const { context, page, errors } = await visit(url)
    await loaded(page)
    fleet.kill()
    // Three intervals without data, and the next refresh.
    await page.getByText('Outage', { exact: true }).waitFor({ timeout: 90_000 })
    await page
      .getByText(/Down since \d\d:\d\d UTC/)
      .first()
      .waitFor()
    await checkPage(page, 'status-public-down')
    await site.request('DELETE', `/api/v1/status-pages/${created.id}`)
    await page.getByText('This status page is not available').waitFor({ timeout: 60_000 })
    await checkPage(page, 'status-public-ended')
    await closePage(context, errors)
  })

  it('has at most 15 kB, compressed', () => {
    const files = readdirSync(join(DIST, 'assets')).filter((name) => /^status-.*\.(js|css)\.br$/.test(name))
    expect(files.length).toBe(2)
    const paths = [...files.map((name) => join(DIST, 'assets', name)), join(DIST, 'status.html.br'), join(DIST, 'appearance.js.br')]
    expect(paths.reduce((bytes, path) => bytes + statSync(path).size, 0)).toBeLessThanOrEqual(15_000)
  })
})

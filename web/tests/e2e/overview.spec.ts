// The overview and the frame around all pages in a real browser: no host, one host, a fleet, a limited viewer, phones.
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ADMIN, checkPage, closePage, openBrowser, openPage, type PageOptions, TestSite } from './support'

const FLEET = 60
/** Bytes of the first load, compressed, with fonts: login page, login, overview. */
const MAX_FIRST_LOAD_BYTES = 150_000
const VIEWER = { name: 'vera', password: 'it rains all day' }
const SCREENS = [
  ['dark', 1440],
  ['light', 1440],
  ['dark', 390],
  ['light', 390],
] as const

let browser: Browser
let site: TestSite

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
}, 120_000)
afterAll(async () => {
  await browser?.close()
  await site?.stop()
})

const open = (path = '/', options: PageOptions = {}) => openPage(browser, site, path, options)

const nameOf = (at: number) => `${['web', 'db', 'cache', 'batch'][at % 4]}-${String(at).padStart(2, '0')}`

/** Sends a snapshot of every host of the fleet; the second one is busy. */
async function sendFleet() {
  const snapshots = Array.from({ length: FLEET }, (_, at) => ({
    host: nameOf(at),
    interval_ms: 60_000,
    cpu: { usage: at === 1 ? 97 : (at * 7) % 60 },
    memory: { used: at + 20, total: 100, used_percent: at === 2 ? 96 : at + 20 },
    load: { '1m': 1.5 },
    network: { total: { rx_bytes: at * 1_000_000, tx_bytes: 500_000 } },
    filesystem: { mount: { '/data': { used_percent: 40, used: 40e9, size: 100e9 } } },
    processes: { top: [{ pid: 7, name: 'worker', user: 'root', cpu_percent: at, memory_bytes: 1e8, threads: 1, command: `worker ${at}` }] },
  }))
  await site.request('POST', '/ingest/metrics', snapshots)
}

async function tagFleet() {
  for (let at = 0; at < FLEET; at++) {
    const tags = [`environment=${at % 3 ? 'production' : 'staging'}`, `role=${nameOf(at).split('-')[0]}`]
    await site.request('PUT', `/api/v1/hosts/${nameOf(at)}/tags`, { tags })
  }
}

const rows = (page: Page) => page.locator('tr[data-host]')
const names = (page: Page) => page.locator('tr[data-host] a.host').allTextContents()

describe('without hosts', () => {
  it.each(SCREENS)('shows the ways to add one in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open('/', { scheme, width })
    await page.getByRole('heading', { name: 'No hosts yet' }).waitFor()
    expect(await page.locator('main code').textContent()).toContain(`curl -fsSL ${site.url}/install.sh || wget`)
    await checkPage(page, `overview-empty-${scheme}-${width}`)
    await closePage(context, errors)
  })

  it('first load stays within its budget', async () => {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 } })
    const page = await context.newPage()
    const session = await context.newCDPSession(page)
    await session.send('Network.enable')
    const urls = new Map<string, string>()
    const sizes = new Map<string, number>()
    session.on('Network.responseReceived', ({ requestId, response }) => urls.set(requestId, new URL(response.url).pathname))
    session.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => {
      const url = urls.get(requestId)
      if (url && !url.startsWith('/api/')) sizes.set(url, encodedDataLength)
    })
    await page.goto(site.url)
    await page.getByLabel('Name').fill(ADMIN.name)
    await page.getByLabel('Password').fill(ADMIN.password)
    await page.getByRole('button', { name: 'Log in' }).click()
    await page.getByRole('heading', { name: 'No hosts yet' }).waitFor()
    await page.waitForLoadState('networkidle')
    const total = [...sizes.values()].reduce((sum, size) => sum + size, 0)
    const largest = [...sizes].sort((a, b) => b[1] - a[1]).slice(0, 12)
    console.log(`first load: ${(total / 1000).toFixed(1)} kB; ${largest.map(([url, size]) => `${url} ${size}`).join(', ')}`)
    expect(total).toBeLessThanOrEqual(MAX_FIRST_LOAD_BYTES)
    await context.close()
  })
})

describe('fleet', () => {
  beforeAll(async () => {
    await sendFleet()
    await tagFleet()
    // Sparklines need a course; the values arrive again.
    await sendFleet()
    await site.createUser({ ...VIEWER, role: 'viewer', host_tags: ['role=web'] })
  }, 120_000)

  it.each(SCREENS)('totals, health, hosts, charts and activity in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open('/', { scheme, width })
    await rows(page).first().waitFor()
    await expect.poll(() => page.getByRole('region', { name: 'Totals' }).textContent()).toContain(String(FLEET))
    await page.getByRole('region', { name: 'Top processes' }).getByText('worker').first().waitFor()
    await page.getByRole('region', { name: 'Activity' }).getByRole('listitem').nth(5).waitFor()
    await checkPage(page, `overview-${scheme}-${width}`)
    await closePage(context, errors)
  })

  it('hosts are filtered, sorted and grouped, and the address has all of it', async () => {
    const { context, page, errors } = await open()
    await rows(page).first().waitFor()
    await page.keyboard.press('/')
    await page.keyboard.type('tag:role=db cpu>50')
    await expect.poll(() => names(page)).toContain('db-01')
    expect((await names(page)).every((name) => name.startsWith('db-'))).toBe(true)
    await page.getByRole('searchbox', { name: 'Filter hosts' }).fill('nothing like this')
    await page.getByRole('heading', { name: 'No host matches the filter' }).waitFor()
    await checkPage(page, 'overview-filtered-empty')
    await page.getByRole('button', { name: 'Clear filter' }).click()
    await page.getByRole('combobox', { name: 'Group by' }).click()
    await page.getByRole('option', { name: 'No groups' }).click()
    await page.getByRole('columnheader', { name: 'CPU' }).getByRole('button').click()
    await expect.poll(() => names(page).then(([first]) => first)).toBe('db-01')
    await page.getByRole('columnheader', { name: 'Host' }).getByRole('button').click()
    await expect.poll(() => names(page).then(([first]) => first)).toBe('batch-03')
    expect(new URL(page.url()).searchParams.get('sort')).toBe('name-asc')
    await page.reload()
    await expect.poll(() => names(page).then(([first]) => first)).toBe('batch-03')
    expect(new URL(page.url()).searchParams.get('group')).toBe('none')
    await closePage(context, errors)
  })

  it('table holds only the visible rows', async () => {
    const { context, page, errors } = await open('/?group=none&sort=name-asc')
    await rows(page).first().waitFor()
    expect(await rows(page).count()).toBeLessThan(FLEET)
    const scroller = page.getByRole('region', { name: 'Host list' })
    await scroller.evaluate((element) => element.scrollTo({ top: element.scrollHeight }))
    await expect.poll(() => names(page).then((shown) => shown.at(-1))).toBe('web-56')
    expect(await rows(page).count()).toBeLessThan(FLEET)
    await closePage(context, errors)
  })

  it.each(SCREENS)('map opens a host by keyboard in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open('/?view=map', { scheme, width })
    const map = page.getByRole('listbox', { name: /^Host map/ })
    await map.waitFor()
    await checkPage(page, `overview-map-${scheme}-${width}`)
    await map.focus()
    await page.keyboard.press('ArrowRight')
    await page.keyboard.press('Enter')
    await expect.poll(() => new URL(page.url()).pathname).toMatch(/^\/hosts\//)
    await closePage(context, errors)
  })

  it('limited viewer sees own hosts only', async () => {
    const { context, page, errors } = await open('/?group=none', { account: VIEWER })
    await rows(page).first().waitFor()
    expect((await names(page)).every((name) => name.startsWith('web-'))).toBe(true)
    await page.getByText('You see hosts tagged role=web.').waitFor()
    const main = (await page.locator('main').textContent())!
    expect(main).not.toMatch(/db-|cache-|batch-/)
    expect(await page.getByRole('link', { name: 'Add host' }).count()).toBe(0)
    await checkPage(page, 'overview-limited')
    await page.keyboard.press('Control+k')
    await page.getByRole('dialog').getByRole('textbox').fill('db-01')
    await page.getByRole('dialog').getByText('No match').waitFor()
    await closePage(context, errors)
  })
})

describe('shell', () => {
  it('command palette finds hosts, pages and actions', async () => {
    const { context, page, errors } = await open()
    await rows(page).first().waitFor()
    await page.keyboard.press('Control+k')
    const palette = page.getByRole('dialog', { name: 'Command palette' })
    await palette.getByRole('option', { name: 'Overview' }).waitFor()
    await page.screenshot({ path: 'test-results/palette.png' })
    await page.keyboard.type('db-01')
    await palette.getByRole('option', { name: /^db-01/ }).waitFor()
    await page.keyboard.press('Enter')
    await expect.poll(() => new URL(page.url()).pathname).toMatch(/^\/hosts\//)
    await expect.poll(() => page.locator('h1').textContent()).toBe('db-01')
    await page.keyboard.press('Control+k')
    await expect.poll(() => palette.getByRole('textbox').evaluate((element) => element === document.activeElement)).toBe(true)
    await page.keyboard.type('>new rule')
    await palette.getByRole('option', { name: 'New rule' }).waitFor()
    await page.keyboard.press('Enter')
    await expect.poll(() => new URL(page.url()).pathname).toBe('/alerts/rules/new')
    await closePage(context, errors)
  })

  it('keys go to pages, open the help, and can be switched off', async () => {
    const { context, page, errors } = await open()
    await rows(page).first().waitFor()
    await page.keyboard.press('g')
    await page.keyboard.press('a')
    await expect.poll(() => new URL(page.url()).pathname).toBe('/alerts')
    await page.keyboard.press('g')
    await page.keyboard.press('h')
    await expect.poll(() => new URL(page.url()).pathname).toBe('/hosts')
    await page.keyboard.press('?')
    const help = page.getByRole('dialog', { name: 'Keyboard shortcuts' })
    await help.waitFor()
    await page.screenshot({ path: 'test-results/shortcuts.png' })
    await help.getByRole('switch', { name: 'Shortcuts of single keys' }).click()
    await page.keyboard.press('Escape')
    await help.waitFor({ state: 'detached' })
    await page.keyboard.press('g')
    await page.keyboard.press('o')
    expect(new URL(page.url()).pathname).toBe('/hosts')
    await closePage(context, errors)
  })

  it('theme, density and navigation are kept', async () => {
    const { context, page, errors } = await open()
    await rows(page).first().waitFor()
    const root = () => page.evaluate(() => ({ ...document.documentElement.dataset }))
    await page.getByRole('button', { name: 'Account of admin' }).click()
    await page.getByRole('menuitemradio', { name: 'Light' }).click()
    await page.getByRole('menuitemradio', { name: 'Compact' }).click()
    await page.screenshot({ path: 'test-results/user-menu.png' })
    await page.keyboard.press('Escape')
    await page.keyboard.press('\\')
    await expect.poll(root).toMatchObject({ theme: 'light', density: 'compact', nav: 'icons' })
    await expect.poll(() => page.getByText('PerfWatch', { exact: true }).isVisible()).toBe(false)
    await page.reload()
    await rows(page).first().waitFor()
    expect(await root()).toMatchObject({ theme: 'light', density: 'compact', nav: 'icons' })
    await checkPage(page, 'overview-compact')
    await closePage(context, errors)
  })

  it('skip link and landmarks lead to the content', async () => {
    const { context, page, errors } = await open()
    await rows(page).first().waitFor()
    await page.keyboard.press('Tab')
    await expect.poll(() => page.evaluate(() => document.activeElement?.textContent)).toBe('Skip to content')
    await page.keyboard.press('Enter')
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('content')
    expect(await page.locator('h1').count()).toBe(1)
    await closePage(context, errors)
  })

  it('phones have a bottom bar with all pages', async () => {
    const { context, page, errors } = await open('/', { width: 390 })
    await rows(page).first().waitFor()
    const bar = page.getByRole('navigation', { name: 'Main' })
    await bar.getByRole('link', { name: 'Alerts' }).click()
    await expect.poll(() => new URL(page.url()).pathname).toBe('/alerts')
    await checkPage(page, 'alerts-phone-shell')
    await bar.getByRole('button', { name: 'More' }).click()
    await page.getByRole('menuitem', { name: 'Settings' }).click()
    await expect.poll(() => new URL(page.url()).pathname).toBe('/settings/account')
    await closePage(context, errors)
  })

  it('manifest makes the dashboard installable', async () => {
    const { context, page, errors } = await open()
    const href = await page.locator('link[rel=manifest]').getAttribute('href')
    const answer = await page.request.get(new URL(href!, page.url()).href)
    expect(answer.status()).toBe(200)
    const manifest = (await answer.json()) as { name: string; display: string; start_url: string; icons: { src: string }[] }
    expect(manifest).toMatchObject({ name: 'PerfWatch', display: 'standalone' })
    for (const { src } of manifest.icons) expect((await page.request.get(new URL(src, answer.url()).href)).status(), src).toBe(200)
    await closePage(context, errors)
  })
})

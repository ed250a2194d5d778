// The list of all hosts in a real browser: columns, filter, actions on several hosts, pins, severity patterns.
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkPage, closePage, openBrowser, openPage, type PageOptions, TestSite } from './support'

const FLEET = 40
const VIEWER = { name: 'vera', password: 'it rains all day' }
const SCREENS = [
  ['dark', 1440],
  ['light', 1440],
  ['light', 390],
  ['dark', 390],
] as const

let browser: Browser
let site: TestSite
const nameOf = (at: number) => `${['web', 'db', 'cache', 'batch'][at % 4]}-${String(at).padStart(2, '0')}`

async function sendFleet() {
  const snapshots = Array.from({ length: FLEET }, (_, at) => ({
    host: nameOf(at),
    interval_ms: 60_000,
    cpu: { usage: at === 1 ? 97 : at === 6 ? 84 : (at * 7) % 60 },
    memory: { used: at + 20, total: 100, used_percent: at === 2 ? 96 : at + 20 },
    load: { '1m': 1.5 },
    network: { total: { rx_bytes: at * 1_000_000, tx_bytes: 500_000 } },
    filesystem: { mount: { '/data': { used_percent: at === 3 ? 91 : 40, used: 40e9, size: 100e9 } } },
    system: { uptime: 90_000 + at * 3_600 },
  }))
  await site.request('POST', '/ingest/metrics', snapshots)
}

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  await sendFleet()
  for (let at = 0; at < FLEET; at++) {
    const tags = [`environment=${at % 3 ? 'production' : 'staging'}`, `role=${nameOf(at).split('-')[0]}`]
    await site.request('PUT', `/api/v1/hosts/${nameOf(at)}/tags`, { tags })
  }
  await sendFleet()
  await site.createUser({ ...VIEWER, role: 'viewer', host_tags: ['role=web'] })
}, 120_000)
afterAll(async () => {
  await browser?.close()
  await site?.stop()
})

async function open(path = '/hosts', options: PageOptions = {}) {
  const { context, page, errors } = await openPage(browser, site, path, options)
  await page.locator('tr[data-host]').first().waitFor()
  return { page, close: () => closePage(context, errors) }
}
const names = (page: Page) => page.locator('tr[data-host] a.host').allTextContents()
const dialog = (page: Page) => page.getByRole('dialog')

describe('hosts', () => {
  it.each(SCREENS)('live values of all hosts in %s at %i px', async (scheme, width) => {
    const { page, close } = await open('/hosts', { scheme, width })
    await page.getByText(`${FLEET} of ${FLEET} hosts`).waitFor()
    await checkPage(page, `hosts-${scheme}-${width}`)
    await close()
  })

  it('filter words are chips, and filters are kept', async () => {
    const { page, close } = await open('/hosts?group=none')
    await page.getByRole('searchbox', { name: 'Filter hosts' }).fill('tag:role=db cpu>50 -db-05')
    await page
      .getByText('Remove -db-05 from the filter')
      .or(page.getByRole('button', { name: 'Remove -db-05 from the filter' }))
      .first()
      .waitFor()
    await expect.poll(() => names(page)).toContain('db-01')
    await page.getByRole('button', { name: 'Saved filters' }).click()
    await page.getByRole('textbox', { name: 'Name of the filter' }).fill('busy databases')
    await page.getByRole('button', { name: 'Save this filter' }).click()
    await page.getByText('busy databases').waitFor()
    await checkPage(page, 'hosts-filters')
    await page.keyboard.press('Escape')
    await page.getByRole('button', { name: 'Remove cpu>50 from the filter' }).click()
    await expect.poll(() => new URL(page.url()).searchParams.get('filter')).toBe('tag:role=db -db-05')
    await page.getByRole('button', { name: 'Clear filter' }).click()
    await page.getByRole('button', { name: 'Saved filters' }).click()
    await page
      .getByRole('button', { name: /busy databases/ })
      .first()
      .click()
    await expect.poll(() => new URL(page.url()).searchParams.get('filter')).toBe('tag:role=db cpu>50 -db-05')
    await page.keyboard.press('Escape')
    await page.getByRole('searchbox', { name: 'Filter hosts' }).fill('nothing like this')
    await page.getByText('No host matches the filter').waitFor()
    await checkPage(page, 'hosts-filtered-empty')
    await close()
  })

  it('columns are chosen and kept', async () => {
    const { page, close } = await open('/hosts?group=none')
    await page.getByRole('button', { name: 'Columns' }).click()
    await page.getByRole('checkbox', { name: 'Uptime', exact: true }).check()
    await page.getByRole('checkbox', { name: 'OS', exact: true }).check()
    await page.getByRole('checkbox', { name: 'Pressure', exact: true }).uncheck()
    await checkPage(page, 'hosts-columns')
    await page.keyboard.press('Escape')
    await page.reload()
    await page.getByRole('columnheader', { name: 'Uptime' }).waitFor()
    expect(await page.getByRole('columnheader', { name: 'Pressure' }).count()).toBe(0)
    await close()
  })

  it('pinned hosts are in the navigation with state and usage', async () => {
    const { page, close } = await open('/hosts?group=none&sort=name-asc&filter=db')
    await page.getByRole('button', { name: 'Pin db-01 to the navigation' }).click()
    const pinned = page.getByRole('region', { name: 'Pinned' })
    await pinned.getByRole('link', { name: /db-01/ }).waitFor()
    await expect.poll(() => pinned.textContent()).toContain('97%')
    expect(new URL(page.url()).pathname).toBe('/hosts')
    await checkPage(page, 'hosts-pinned')
    await page.reload()
    await pinned.getByRole('link', { name: /db-01/ }).click()
    await expect.poll(() => page.locator('h1').textContent()).toBe('db-01')
    await close()
  })

  it('severity patterns are an option of the appearance', async () => {
    const { page, close } = await open('/hosts?group=none&sort=memory-desc')
    await page.getByRole('button', { name: 'Account of admin' }).click()
    await page.getByRole('group', { name: 'Severity patterns' }).getByRole('menuitemradio', { name: 'On' }).click()
    await page.keyboard.press('Escape')
    await expect.poll(() => page.evaluate(() => document.documentElement.dataset.patterns)).toBe('on')
    await page.reload()
    await page.locator('tr[data-host]').first().waitFor()
    expect(await page.evaluate(() => document.documentElement.dataset.patterns)).toBe('on')
    const background = () =>
      page
        .locator('.meter .level.critical')
        .first()
        .evaluate((level) => getComputedStyle(level).backgroundImage)
    await expect.poll(background).toContain('repeating-linear-gradient')
    await checkPage(page, 'hosts-patterns')
    await close()
  })

  it('limited viewer sees own hosts and no actions', async () => {
    const { page, close } = await open('/hosts?group=none', { account: VIEWER })
    expect((await names(page)).every((name) => name.startsWith('web-'))).toBe(true)
    await page.getByText('You see hosts tagged role=web.').waitFor()
    expect(await page.locator('tr[data-host] input').count()).toBe(0)
    expect(await page.getByRole('link', { name: 'Add host' }).count()).toBe(0)
    await checkPage(page, 'hosts-limited')
    await close()
  })

  it('acts on several hosts', async () => {
    const { page, close } = await open('/hosts?group=none&sort=name-asc')
    await page.getByLabel('Select batch-03').check()
    await page.getByLabel('Select batch-07').check()
    await page.getByRole('button', { name: 'Tags…' }).click()
    await dialog(page).getByLabel('Add tags').fill('old')
    await dialog(page).getByLabel('environment=staging').check()
    await checkPage(page, 'hosts-tags')
    await dialog(page).getByRole('button', { name: 'Save' }).click()
    await page.getByText('2 hosts changed').waitFor()
    const { tags } = await site.request<{ tags: string[] }>('GET', '/api/v1/hosts/batch-03')
    expect(tags.sort()).toEqual(['old', 'role=batch'])
    await page.getByRole('button', { name: 'Remove…' }).click()
    await dialog(page).getByLabel('Type "remove 2 hosts" to confirm').fill('remove 2 hosts')
    await checkPage(page, 'hosts-remove')
    await dialog(page).getByRole('button', { name: 'Remove 2 hosts' }).click()
    await page.getByText('2 hosts removed').waitFor()
    await page.getByText(`${FLEET - 2} of ${FLEET - 2} hosts`).waitFor()
    expect(await names(page)).not.toContain('batch-03')
    await close()
  })
})

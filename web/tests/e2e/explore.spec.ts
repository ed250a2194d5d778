// Explore in a real browser: queries, formulas, charts, saved views, downloads, roles.
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkPage, closePage, openBrowser, openPage, stableBox, TestSite, type PageOptions } from './support'

const BINARY = process.env.E2E_BIN ?? `${import.meta.dirname}/../../../target/debug/perfwatch`
const PASSWORD = 'it rains all day'
const OPERATOR = { name: 'olaf', password: PASSWORD }
const VIEWER = { name: 'vera', password: PASSWORD }
const LIMITED = { name: 'lea', password: PASSWORD }
const SCREENS = [
  ['dark', 1440],
  ['light', 1440],
  ['dark', 390],
  ['light', 390],
] as const
const HOSTS = 6

let browser: Browser
let site: TestSite
let fleet: ChildProcess
let names: string[]

interface HostList {
  hosts: { id: string; name: string; tags: string[] }[]
}

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  const connection = ['--hub', site.url, '--token', site.token]
  const size = ['--hosts', String(HOSTS), '--interval', '2s', '--backfill', '2h']
  fleet = spawn(BINARY, ['simulate', ...connection, ...size], { stdio: 'ignore' })
  const list = () => site.request<HostList>('GET', '/api/v1/hosts')
  while ((await list()).hosts.length < HOSTS) await new Promise((done) => setTimeout(done, 500))
  const { hosts } = await list()
  names = hosts.map(({ name }) => name).sort()
  for (const [at, host] of hosts.entries())
    await site.request('PUT', `/api/v1/hosts/${host.id}/tags`, { tags: [at < 2 ? 'role=db' : 'role=web'] })
  await site.createUser({ ...OPERATOR, role: 'operator' })
  await site.createUser({ ...VIEWER, role: 'viewer' })
  await site.createUser({ ...LIMITED, role: 'viewer', host_tags: ['role=db'] })
  // Until the backfill of all hosts has arrived.
  const query = { queries: [{ id: 'A', metric: 'cpu.usage', aggregate: 'sum', by: 'none' }], from: '-90m', to: '-60m' }
  interface Sums {
    series: { hosts: number[] }[]
  }
  const isComplete = async () => (await site.request<Sums>('POST', '/api/v1/query', query)).series[0]?.hosts.at(-2) === HOSTS
  while (!(await isComplete())) await new Promise((done) => setTimeout(done, 500))
}, 240_000)
afterAll(async () => {
  fleet?.kill()
  await browser?.close()
  await site?.stop()
})

const open = (path: string, options: PageOptions = {}) => openPage(browser, site, path, options)
const address = (set: object, more = '') => `/explore?q=${encodeURIComponent(JSON.stringify(set))}${more}`
const TWO = {
  queries: [
    { id: 'A', metric: 'cpu.usage', hosts: { tags: ['role=db'] }, by: 'host' },
    { id: 'B', metric: 'memory.used', aggregate: 'max', by: 'host', limit: 3 },
  ],
}
const charts = (page: Page) => page.locator('section.chart')
const points = (page: Page, at: number) => charts(page).nth(at).getAttribute('data-points').then(Number)
const selectedSegment = (page: Page, name: string) => page.locator('.segment[data-state=on]', { hasText: name })
const choose = async (page: Page, label: string, option: string | RegExp) => {
  await page.getByRole('combobox', { name: label }).click()
  await page.getByRole('option', { name: option }).click()
}

describe('explore', () => {
  it.each(SCREENS)('queries, charts and table in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open(address(TWO, '&range=1h'), { scheme, width })
    await page.getByRole('heading', { name: 'Explore', level: 1 }).waitFor()
    await expect.poll(() => charts(page).count()).toBe(2)
    await expect.poll(() => points(page, 0)).toBeGreaterThan(100)
    await page.getByText(/5 series · \d+ points each/).waitFor()
    await page.getByRole('region', { name: 'Series' }).getByRole('link', { name: names[0]! }).first().waitFor()
    await checkPage(page, `explore-${scheme}-${width}`)
    await closePage(context, errors)
  })

  it('a query is changed by its fields, and the address follows', async () => {
    const { context, page, errors } = await open('/explore')
    await expect.poll(() => points(page, 0)).toBeGreaterThan(100)
    const table = page.getByRole('region', { name: 'Series' })
    await expect.poll(() => table.getByRole('row').count()).toBe(HOSTS + 1)
    await choose(page, 'Limit of A', 'Top 3 by last')
    await expect.poll(() => table.getByRole('row').count()).toBe(4)
    await choose(page, 'Group A by', 'By tag role')
    await table.getByText('web', { exact: true }).waitFor()
    await choose(page, 'Aggregation of A', 'Sum')
    await table.getByText('4 hosts reported last').waitFor()
    await page.getByRole('button', { name: /^Metric of A/ }).click()
    await page
      .getByRole('combobox', { name: 'Filter' })
      .or(page.getByRole('textbox', { name: 'Filter' }))
      .first()
      .fill('load.1')
    await page.getByRole('option', { name: 'load.1m' }).click()
    await expect.poll(() => new URL(page.url()).searchParams.get('q')).toContain('load.1m')
    // The link shows the same in another browser.
    const other = await open(page.url().slice(site.url.length), { account: VIEWER })
    await other.page.getByRole('region', { name: 'Series' }).getByText('A load.1m').first().waitFor()
    await closePage(other.context, other.errors)
    await closePage(context, errors)
  })

  it('hosts are selected by tag', async () => {
    const { context, page, errors } = await open('/explore')
    const table = page.getByRole('region', { name: 'Series' })
    await expect.poll(() => table.getByRole('row').count()).toBe(HOSTS + 1)
    await page.getByRole('button', { name: /^Hosts of A/ }).click()
    await page
      .getByRole('radio', { name: 'By tag' })
      .or(page.getByRole('button', { name: 'By tag' }))
      .first()
      .click()
    await page.getByRole('button', { name: 'role=db' }).click()
    await page.keyboard.press('Escape')
    await expect.poll(() => table.getByRole('row').count()).toBe(3)
    await page.getByRole('button', { name: 'Hosts of A: role=db' }).getByText('2 hosts').waitFor()
    await closePage(context, errors)
  })

  it('formulas draw series of their own, and their errors are shown', async () => {
    const { context, page, errors } = await open(address(TWO))
    await expect.poll(() => charts(page).count()).toBe(2)
    await page.getByRole('button', { name: 'Formula' }).click()
    await expect.poll(() => charts(page).count()).toBe(3)
    const field = page.getByRole('textbox', { name: 'Formula F1' })
    await field.fill('A / (B')
    await field.press('Enter')
    await page.getByText(/Formulas\[0\]\.expression: missing \)/).waitFor()
    await field.fill('A * 2')
    await field.press('Enter')
    await page.getByRole('region', { name: 'Series' }).getByText('F1 A * 2').first().waitFor()
    await page.getByRole('button', { name: 'Hide A' }).click()
    await expect.poll(() => charts(page).count()).toBe(2)
    await closePage(context, errors)
  })

  it('charts are split, stacked and drawn as heat map', async () => {
    const { context, page, errors } = await open(address(TWO))
    await expect.poll(() => charts(page).count()).toBe(2)
    await page.locator('.segment', { hasText: 'Split by host' }).click()
    await expect.poll(() => charts(page).count()).toBeGreaterThan(3)
    await page.locator('.segment', { hasText: 'Split by metric' }).click()
    await page.locator('.segment', { hasText: 'Stack' }).click()
    await expect.poll(() => charts(page).count()).toBe(2)
    await page.locator('.segment', { hasText: 'Heat map' }).click()
    const heat = page.locator('section.heat').first()
    await expect.poll(() => heat.getAttribute('data-rows')).toBe('2')
    const canvas = heat.locator('canvas')
    const box = await stableBox(canvas)
    await page.mouse.move(box.x + box.width / 2, box.y + 14)
    await heat.getByText(/% at /).waitFor()
    await checkPage(page, 'explore-heat')
    expect(new URL(page.url()).searchParams.get('form')).toBe('heat_map')
    await closePage(context, errors)
  })

  it('a zoom is part of the address, and is undone', async () => {
    const { context, page, errors } = await open('/explore?range=1h')
    await expect.poll(() => points(page, 0)).toBeGreaterThan(100)
    const plot = charts(page).first().locator('.u-over')
    const box = await stableBox(plot)
    await page.mouse.move(box.x + 200, box.y + 50)
    await page.mouse.down()
    await page.mouse.move(box.x + 400, box.y + 50, { steps: 5 })
    await page.mouse.up()
    await expect.poll(() => new URL(page.url()).searchParams.get('from')).not.toBeNull()
    await plot.dblclick()
    await expect.poll(() => new URL(page.url()).searchParams.get('from')).toBeNull()
    await closePage(context, errors)
  })

  it('values and images are downloaded', async () => {
    const { context, page, errors } = await open(address(TWO))
    await expect.poll(() => charts(page).count()).toBe(2)
    const download = async (name: string) => {
      const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name }).click()])
      return { name: file.suggestedFilename(), content: readFileSync(await file.path()) }
    }
    const csv = await download('CSV')
    expect(csv.name).toBe('Explore.csv')
    const [header, ...rows] = csv.content.toString().trim().split('\r\n')
    expect(header!.split(',')).toHaveLength(6)
    expect(rows.length).toBeGreaterThan(100)
    expect(rows[10]).toMatch(/^\d{4}-\d{2}-\d{2}T[\d:.]+Z(,[\d.]*){5}$/)
    const png = await download('PNG')
    expect(png.content.subarray(1, 4).toString()).toBe('PNG')
    expect(png.content.length).toBeGreaterThan(10_000)
    await closePage(context, errors)
  })

  it('views are saved, shared, changed and deleted', async () => {
    const { context, page, errors } = await open(address(TWO, '&range=6h&form=stack'), { account: OPERATOR })
    await page.getByRole('button', { name: 'Save', exact: true }).click()
    await page.getByRole('textbox', { name: 'Name' }).fill('Databases')
    await page.getByRole('checkbox', { name: 'Visible to all users' }).check()
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click()
    await page.getByRole('heading', { name: 'Databases', level: 1 }).waitFor()
    await expect.poll(() => new URL(page.url()).pathname).toMatch(/^\/explore\/[0-9a-f-]{36}$/)
    const path = new URL(page.url()).pathname
    await page.getByText('Saved view', { exact: true }).waitFor()
    await checkPage(page, 'explore-view')

    const viewer = await open('/explore', { account: VIEWER })
    await viewer.page.getByRole('complementary').getByRole('link', { name: 'Databases' }).click()
    await viewer.page.getByText('Shared by olaf').waitFor()
    await selectedSegment(viewer.page, 'Stack').waitFor()
    await viewer.page.getByRole('combobox', { name: 'Time range' }).getByText(/6 h/).waitFor()
    expect(await viewer.page.getByRole('button', { name: 'Delete view' }).count()).toBe(0)
    expect(await viewer.page.getByRole('link', { name: 'Create rule' }).count()).toBe(0)
    await closePage(viewer.context, viewer.errors)

    await page.locator('.segment', { hasText: 'Line' }).click()
    await page.getByText('edited, not saved').waitFor()
    await page.getByRole('button', { name: 'Save', exact: true }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click()
    await expect.poll(() => page.getByText('edited, not saved').count()).toBe(0)
    await selectedSegment(page, 'Line').waitFor()
    await page.keyboard.press('Control+k')
    await page.getByRole('dialog').getByText('Databases').waitFor()
    await page.keyboard.press('Escape')
    await page.getByRole('button', { name: 'Delete view' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Delete view' }).click()
    await expect.poll(() => new URL(page.url()).pathname).toBe('/explore')
    await page.goto(site.url + path)
    await page.getByRole('heading', { name: 'View not found' }).waitFor()
    await checkPage(page, 'explore-missing')
    await closePage(context, errors)
  })

  it('limited users see their hosts only', async () => {
    const { context, page, errors } = await open('/explore', { account: LIMITED })
    const table = page.getByRole('region', { name: 'Series' })
    await expect.poll(() => table.getByRole('row').count()).toBe(3)
    const hidden = (await site.request<HostList>('GET', '/api/v1/hosts')).hosts.filter(({ tags }) => tags.includes('role=web'))
    const text = await page.content()
    for (const { name } of hidden) expect(text).not.toContain(name)
    // A link of another user that names hidden hosts.
    await page.goto(site.url + address({ queries: [{ id: 'A', metric: 'cpu.usage', hosts: { hosts: [hidden[0]!.id] } }] }))
    await page.getByText(`No such host: ${hidden[0]!.id}`).waitFor()
    await page.getByText('No values', { exact: true }).waitFor()
    await checkPage(page, 'explore-limited')
    await closePage(context, errors)
  })

  it('states: failing request, no queries, shortcut', async () => {
    const { context, page } = await open('/alerts')
    await page.locator('main').waitFor()
    await page.route('**/api/v1/query', (route) =>
      route.fulfill({ status: 503, json: { error: { code: 'store_unavailable', message: 'x' } } }),
    )
    await page.keyboard.press('g')
    await page.keyboard.press('e')
    await expect.poll(() => new URL(page.url()).pathname).toBe('/explore')
    await page.getByText('The database is unavailable').waitFor()
    await page.unroute('**/api/v1/query')
    await page.getByRole('button', { name: 'Retry' }).click()
    await expect.poll(() => points(page, 0)).toBeGreaterThan(100)
    await page.goto(site.url + address({ queries: [] }))
    await page.getByRole('heading', { name: 'No queries' }).waitFor()
    await checkPage(page, 'explore-empty')
    await page.getByRole('main').getByRole('button', { name: 'Query' }).last().click()
    await expect.poll(() => charts(page).count()).toBe(1)
    await context.close()
  })

  it('says what the limits left out', async () => {
    const { context, page, errors } = await open('/overview')
    await page.route('**/api/v1/query', async (route) => {
      const answer = await route.fetch()
      const body = (await answer.json()) as { left_out: object }
      body.left_out = { hosts: 12, series: 1, points: 0, reasons: ['time', 'series'], unknown_hosts: [] }
      await route.fulfill({ response: answer, json: body })
    })
    await page.goto(`${site.url}/explore`)
    await page.getByText('Left out: 12 hosts, 1 series (time limit, maximum number of series).').waitFor()
    await closePage(context, errors)
  })
})

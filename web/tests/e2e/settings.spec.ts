// Settings of the hub in a real browser: retention with its effect, locked settings, conflicts, undo, roles.
import { type ChildProcess, spawn } from 'node:child_process'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkPage, closePage, openBrowser, openPage, type PageOptions, TestSite } from './support'

const OPERATOR = { name: 'olga', password: 'it rains all day' }
const SCREENS = [
  ['dark', 1440],
  ['light', 1440],
  ['dark', 390],
  ['light', 390],
] as const
const PAGES = [
  'general',
  'retention',
  'collection',
  'notifications',
  'agents',
  'status-pages',
  'users',
  'security',
  'sso',
  'audit',
  'account',
  'tokens',
  'appearance',
]
const BINARY = process.env.E2E_BIN ?? `${import.meta.dirname}/../../../target/debug/perfwatch`

let browser: Browser
let site: TestSite
let fleet: ChildProcess

interface SettingsAnswer {
  version: number
  settings: { name: string; value: number | null; source: string; locked: boolean }[]
}

const settings = () => site.request<SettingsAnswer>('GET', '/api/v1/settings')
const valueOf = async (name: string) => (await settings()).settings.find((setting) => setting.name === name)?.value

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite(true, { PERFWATCH_HUB_RETENTION_HOURS: '365d', PERFWATCH_HUB_OIDC_NAME: 'Example ID' })
  await site.startHub()
  const args = ['simulate', '--hub', site.url, '--token', site.token, '--hosts', '6', '--interval', '10s', '--backfill', '4h']
  fleet = spawn(BINARY, args, { stdio: 'ignore' })
  await site.createUser({ ...OPERATOR, role: 'operator' })
  // Blocks of all hosts and their minutes.
  interface Preview {
    hosts: number
    tiers: { reach_s: number | null }[]
  }
  const preview = () => site.request<Preview>('POST', '/api/v1/settings/preview', { values: {} })
  while ((await preview()).hosts < 6) await new Promise((done) => setTimeout(done, 1_000))
}, 180_000)
afterAll(async () => {
  fleet?.kill()
  await browser?.close()
  await site?.stop()
})

const open = (path: string, options: PageOptions = {}) => openPage(browser, site, path, options)

const field = (page: Page, name: string) => page.getByLabel(name, { exact: true })
const KEEP_RAW = 'Every sample, with processes: Keep for'

describe('pages', () => {
  it.each(SCREENS)('all pages in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open('/settings/retention', { scheme, width })
    // All pages in the outer two screens; the page with own drawing in all.
    for (const name of (scheme === 'dark') === (width === 1440) ? PAGES : ['retention']) {
      await page.goto(`${site.url}/settings/${name}`)
      await page.locator('main section').first().waitFor()
      if (name === 'retention') await page.getByText('of detail').first().waitFor()
      await page.waitForLoadState('networkidle')
      await checkPage(page, `settings-${name}-${scheme}-${width}`)
    }
    await closePage(context, errors)
  })
})

describe('retention', () => {
  it('shows the effect of a budget before it is saved, and undoes it', async () => {
    const { context, page, errors } = await open('/settings/retention')
    const effect = page.getByRole('region', { name: 'Storage budget' })
    await effect.getByText('of detail').first().waitFor()
    // Set in the environment of the hub.
    const hours = field(page, 'Every hour: Keep for')
    expect(await hours.isDisabled()).toBe(true)
    await page.getByText('Set as hub.retention.hours by an environment variable').waitFor()
    await page.getByRole('textbox', { name: 'Storage budget' }).fill('20 GB')
    await expect.poll(() => effect.textContent()).toMatch(/20 GiB (gives|has space for)/)
    await expect.poll(() => effect.textContent()).toContain('Now: 10 GiB')
    await page.getByText('1 unsaved change').waitFor()
    await checkPage(page, 'settings-retention-changed')
    await page.getByRole('button', { name: 'Save changes' }).click()
    await page.getByText('Saved. In effect on all hubs.').waitFor()
    expect(await valueOf('disk_budget_bytes')).toBe(20 * 2 ** 30)
    const system = await site.request<{ storage: { budget_bytes: number } }>('GET', '/api/v1/system')
    expect(system.storage.budget_bytes).toBe(20 * 2 ** 30)
    await page.getByRole('button', { name: 'Undo' }).click()
    await expect.poll(() => valueOf('disk_budget_bytes')).toBe(10 * 2 ** 30)
    await closePage(context, errors)
  })

  it('asks before a shorter retention deletes history', async () => {
    const { context, page, errors } = await open('/settings/retention')
    await field(page, KEEP_RAW).fill('1h')
    await page.getByText(/Saving deletes .* of detail at once/).waitFor()
    await page.getByRole('button', { name: 'Save changes' }).click()
    const dialog = page.getByRole('dialog', { name: 'Delete history?' })
    await dialog.waitFor()
    await checkPage(page, 'settings-retention-confirm')
    await dialog.getByRole('button', { name: 'Cancel' }).click()
    expect(await valueOf('raw_retention_s')).toBe(14 * 86_400)
    // Unsaved changes outlive navigation.
    await page.getByRole('link', { name: 'Collection' }).click()
    await page.getByRole('link', { name: 'Retention & storage' }).click()
    expect(await field(page, KEEP_RAW).inputValue()).toBe('1 h')
    await page.getByRole('button', { name: 'Discard' }).click()
    expect(await field(page, KEEP_RAW).inputValue()).toBe('14 d')
    await closePage(context, errors)
  })

  it('rejects values that are not possible', async () => {
    const { context, page, errors } = await open('/settings/retention')
    await field(page, KEEP_RAW).fill('soon')
    await page.getByText('Enter a duration such as 14d or 12h').waitFor()
    expect(await page.getByRole('button', { name: 'Save changes' }).isDisabled()).toBe(true)
    await field(page, KEEP_RAW).fill('100d')
    await page.getByText(/minute_retention_s: must be at least the retention of raw rows/i).waitFor()
    await closePage(context, errors)
  })

  it('reports a conflict with another administrator', async () => {
    const first = await open('/settings/security')
    const second = await open('/settings/security')
    for (const [at, { page }] of [first, second].entries()) {
      await field(page, 'Minimum length').fill(String(12 + at))
      await page.getByRole('button', { name: 'Save changes' }).click()
      if (at === 0) await page.getByText('Saved. In effect on all hubs.').waitFor()
    }
    await second.page.getByText(/Changed by admin .* ago\. Your changes are not saved\./).waitFor()
    await checkPage(second.page, 'settings-conflict')
    expect(await valueOf('min_password_length')).toBe(12)
    await second.page.getByRole('button', { name: 'Overwrite' }).click()
    await second.page.getByText('Saved. In effect on all hubs.').waitFor()
    expect(await valueOf('min_password_length')).toBe(13)
    const audit = await site.request<{ entries: { action: string; after: object }[] }>('GET', '/api/v1/audit?limit=5')
    expect(audit.entries.find(({ action }) => action === 'settings.update')?.after).toEqual({ min_password_length: 13 })
    await closePage(first.context, first.errors)
    await closePage(second.context, second.errors)
  })
})

describe('collection', () => {
  interface CollectorsAnswer {
    policy: { collectors: object; overrides: { tags: string[]; interval_ms: number | null; collectors: object }[] }
  }
  const policy = async () => (await site.request<CollectorsAnswer>('GET', '/api/v1/collectors')).policy

  it.each(SCREENS)('collectors are switched for all hosts and overridden by tag in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open('/settings/collection', { scheme, width })
    const table = page.getByRole('region', { name: 'Collectors' }).last()
    const toggle = (name: string) => table.getByRole('switch', { name, exact: true })
    await toggle('processes').click()
    await page.getByLabel('Interval of disk', { exact: true }).fill('10s')
    await page.getByText('2 unsaved changes').waitFor()
    await page.getByRole('button', { name: 'Override for some hosts' }).click()
    const dialog = page.getByRole('dialog', { name: 'Hosts of the override' })
    await dialog.getByRole('textbox', { name: 'Tags' }).fill('env=lab')
    await checkPage(page, `settings-collectors-dialog-${scheme}-${width}`)
    await dialog.getByRole('button', { name: 'Apply' }).click()
    await page.getByLabel('Interval of these agents', { exact: true }).fill('1m')
    // Switched off for all hosts, on for these.
    await toggle('processes').click()
    await checkPage(page, `settings-collectors-override-${scheme}-${width}`)
    await page.getByRole('button', { name: 'Save changes' }).click()
    await page.getByText('Saved. In effect on all hubs.').waitFor()
    expect(await policy()).toEqual({
      collectors: { disk: { disabled: false, interval_ms: 10_000 }, processes: { disabled: true, interval_ms: null } },
      overrides: [{ hosts: [], tags: ['env=lab'], interval_ms: 60_000, collectors: { processes: { disabled: false, interval_ms: null } } }],
    })
    await checkPage(page, `settings-collectors-${scheme}-${width}`)
    await page.getByRole('button', { name: 'Undo' }).click()
    await expect.poll(policy).toEqual({ collectors: {}, overrides: [] })
    await closePage(context, errors)
  })

  it('an interval that is no duration is not saved', async () => {
    const { context, page, errors } = await open('/settings/collection')
    await page.getByLabel('Interval of disk', { exact: true }).fill('soon')
    await page.getByText('Correct the marked fields first').waitFor()
    expect(await page.getByRole('button', { name: 'Save changes' }).isDisabled()).toBe(true)
    await page.getByRole('button', { name: 'Discard' }).click()
    expect(await page.getByLabel('Interval of disk', { exact: true }).inputValue()).toBe('')
    await closePage(context, errors)
  })
})

describe('access', () => {
  it('operators see their own pages only', async () => {
    const { context, page, errors } = await open('/settings/agents', { account: OPERATOR })
    await page.getByRole('heading', { name: 'Agents' }).waitFor()
    expect(await page.getByRole('link', { name: 'Retention & storage' }).count()).toBe(0)
    await page.goto(`${site.url}/settings/retention`)
    await page.getByText('Your role does not include this page').waitFor()
    await checkPage(page, 'settings-forbidden')
    await closePage(context, errors)
  })

  it('a failing request is shown in the page with a retry', async () => {
    const { context, page, errors } = await open('/settings/collection')
    await page.route('**/api/v1/settings', (route) =>
      route.fulfill({ status: 503, json: { error: { code: 'store_unavailable', message: 'x' } } }),
    )
    await page.goto(`${site.url}/settings/collection`)
    await page.getByText('The database is unavailable').waitFor()
    await page.unroute('**/api/v1/settings')
    await page.getByRole('button', { name: 'Retry' }).click()
    await field(page, 'Interval of agents').waitFor()
    expect(errors.filter((error) => !error.includes('503'))).toEqual([])
    await context.close()
  })
})

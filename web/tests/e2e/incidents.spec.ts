// Active incidents, incident page, silences and history in a real browser: a fleet with alerts, hostile names, a
// limited viewer, keys, phones.
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { checkPage, closePage, openBrowser, openPage, stableBox, TestSite, type PageOptions } from './support'

const HOSTILE = '<img src=x onerror=alert(1)>'
const HOSTS = ['db-01', 'web-01', 'web-02', 'web-03', 'web-04', HOSTILE]
const VIEWER = { name: 'vera', password: 'it rains all day' }
const SCREENS = [
  ['dark', 1440],
  ['light', 1440],
  ['dark', 390],
  ['light', 390],
] as const

let browser: Browser
let site: TestSite
let sender: ReturnType<typeof setInterval> | undefined

interface Incident {
  id: string
  title: string
}

const isWeb = (at: number) => at >= 1 && at <= 4

/** Sends a snapshot of every host. The database is busy, the web servers have network errors. */
function send(at_ms: number, isBusy: boolean) {
  const snapshots = HOSTS.map((host, at) => ({
    host,
    interval_ms: 1_000,
    timestamp: at_ms,
    cpu: { usage: at === 0 && isBusy ? 96 : 30, context_switches: at === 0 && isBusy ? 90_000 : 10_000 },
    memory: { used_percent: at === 5 && isBusy ? 97 : 50 },
    network: { interface: { eth0: { rx_errors: isWeb(at) && isBusy ? 10 * at : 0 } } },
    processes: {
      top: [
        {
          pid: 7,
          name: 'postgres',
          user: 'db',
          command: `reindex ${HOSTILE}`,
          cpu_percent: isBusy ? 412 : 20,
          memory_bytes: 1e9,
          threads: 1,
        },
        { pid: 9, name: HOSTILE, user: 'db', command: '', cpu_percent: 5, memory_bytes: 1e8, threads: 1 },
      ],
    },
  }))
  return site.request('POST', '/ingest/metrics', snapshots)
}

const threshold = (name: string, severity: string, metric: string, limit: number, more: object) => ({
  name,
  severity,
  condition: { kind: 'threshold', metric, threshold: limit, clear_threshold: limit * 0.9, compare: 'above' },
  for: '2s',
  runbook: 'See https://wiki.example/runbook.',
  hosts: {},
  ...more,
})
const incidents = async () => (await site.request<{ incidents: Incident[] }>('GET', '/api/v1/incidents')).incidents

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  const { rules } = await site.request<{ rules: { rule: { id: string } }[] }>('GET', '/api/v1/rules')
  for (const { rule } of rules) await site.request('DELETE', `/api/v1/rules/${rule.id}`)
  const start = Date.now()
  // History, so that the course and the explanation have something to compare with.
  for (let ms = start - 240_000; ms < start; ms += 2_000) await send(ms, false)
  for (const host of HOSTS) {
    const id = (await site.request<{ hosts: { id: string; name: string }[] }>('GET', '/api/v1/hosts')).hosts.find(
      ({ name }) => name === host,
    )!.id
    await site.request('PUT', `/api/v1/hosts/${id}/tags`, { tags: [`role=${host.split('-')[0]!.replaceAll(/\W/g, 'x')}`] })
  }
  await site.createUser({ ...VIEWER, role: 'viewer', host_tags: ['role=web'] })
  await site.request('POST', '/api/v1/rules', threshold('CPU saturation', 'critical', 'cpu.usage', 90, {}))
  await site.request('POST', '/api/v1/rules', threshold('Memory usage', 'warning', 'memory.used_percent', 90, {}))
  await site.request('POST', '/api/v1/rules', threshold('Network errors', 'warning', 'network.rx_errors', 1, {}))
  sender = setInterval(() => void send(Date.now(), true).catch(() => undefined), 1_000)
  await vi.waitFor(async () => expect((await incidents()).length).toBe(6), { timeout: 30_000, interval: 500 })
}, 120_000)
afterAll(async () => {
  clearInterval(sender)
  await browser?.close()
  await site?.stop()
})

const open = (path: string, options: PageOptions = {}) => openPage(browser, site, path, options)

const line = (page: Page, text: string) => page.locator('[data-incident]').filter({ hasText: text })
const query = (page: Page) => new URL(page.url()).searchParams

describe('active incidents', () => {
  it.each(SCREENS)('are grouped and explained in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open('/alerts', { scheme, width })
    await line(page, 'CPU saturation').waitFor()
    await page.getByRole('region', { name: 'Critical' }).getByText('reindex').first().waitFor({ state: 'hidden' })
    await page.getByText('Largest consumers').waitFor()
    await page.getByRole('button', { name: /Network errors on 4 hosts/ }).waitFor()
    expect(await line(page, 'Network errors').count()).toBe(0)
    await line(page, 'Memory usage').getByText(HOSTILE).first().waitFor()
    if (width > 700) await line(page, 'CPU saturation').getByText('4.1 cores').waitFor()
    await checkPage(page, `alerts-active-${scheme}-${width}`)
    await closePage(context, errors)
  })

  it('folds open, and filters are in the address', async () => {
    const { context, page, errors } = await open('/alerts')
    await page.getByRole('button', { name: /Network errors on 4 hosts/ }).click()
    await expect.poll(() => line(page, 'Network errors').count()).toBe(4)
    await page.keyboard.press('/')
    await page.keyboard.type('web-02')
    await expect.poll(() => page.locator('[data-incident]').count()).toBe(1)
    expect(query(page).get('filter')).toBe('web-02')
    await page.getByRole('combobox', { name: 'Severity' }).click()
    await page.getByRole('option', { name: 'Critical' }).click()
    await page.getByRole('heading', { name: 'No matching incidents' }).waitFor()
    await page.reload()
    await page.getByRole('heading', { name: 'No matching incidents' }).waitFor()
    await checkPage(page, 'alerts-filtered-empty')
    await page.getByRole('button', { name: 'Clear filter' }).click()
    await line(page, 'CPU saturation').waitFor()
    expect([...query(page).keys()]).toEqual([])
    await closePage(context, errors)
  })

  it('keys move, select, acknowledge and silence', async () => {
    const { context, page, errors } = await open('/alerts')
    await line(page, 'CPU saturation').waitFor()
    await page.keyboard.press('j')
    await page.keyboard.press('x')
    await page.keyboard.press('j')
    await page.keyboard.press('x')
    await page.getByText('2 selected').waitFor()
    await page.keyboard.press('a')
    await page.getByText('2 incidents acknowledged.').waitFor()
    await expect.poll(() => line(page, 'CPU saturation').getByText('admin').count()).toBe(1)
    await checkPage(page, 'alerts-acknowledged')
    await page.getByRole('button', { name: 'Undo' }).click()
    await expect.poll(() => line(page, 'CPU saturation').getByText('Unacknowledged').count()).toBe(1)
    await page.getByRole('link', { name: /Memory usage/ }).focus()
    await page.keyboard.press('m')
    const dialog = page.getByRole('dialog', { name: 'Silence alerts' })
    await dialog.getByText(HOSTILE).waitFor()
    await dialog.getByRole('button', { name: 'Create silence' }).click()
    await dialog.waitFor({ state: 'detached' })
    type Silences = { silences: { silence: { matcher: { hosts: string[]; rules: string[] } }; held_back: number }[] }
    const { silences } = await site.request<Silences>('GET', '/api/v1/silences')
    expect(silences.map(({ silence, held_back: held }) => [silence.matcher.hosts.length, silence.matcher.rules.length, held])).toEqual([
      [1, 1, 1],
    ])
    await closePage(context, errors)
  })

  it('limited viewer sees own incidents without commands', async () => {
    const { context, page, errors } = await open('/alerts', { account: VIEWER })
    await page.getByRole('button', { name: /Network errors on 4 hosts/ }).waitFor()
    await page.getByText('You see hosts tagged role=web.').waitFor()
    const main = (await page.locator('main').textContent())!
    expect(main).not.toMatch(/db-01|CPU saturation|Memory usage/)
    expect(await page.getByRole('link', { name: 'New rule' }).count()).toBe(0)
    expect(await page.getByRole('button', { name: 'Acknowledge' }).count()).toBe(0)
    await checkPage(page, 'alerts-limited')
    await page.goto(`${site.url}/alerts/history`)
    await page.getByRole('table').getByText('Network errors').first().waitFor()
    expect((await page.locator('main').textContent())!).not.toMatch(/CPU saturation|Memory usage|6 incidents/)
    await closePage(context, errors)
  })

  it('keeps the list while the hub does not answer, and says so', async () => {
    const { context, page, errors } = await open('/alerts')
    await line(page, 'CPU saturation').waitFor()
    await context.setOffline(true)
    await page.getByText('Retrying automatically').waitFor({ timeout: 40_000 })
    await line(page, 'CPU saturation').waitFor()
    await checkPage(page, 'alerts-unreachable')
    await context.setOffline(false)
    await page.getByText('Retrying automatically').waitFor({ state: 'detached', timeout: 40_000 })
    expect(errors.filter((text) => !text.includes('ERR_INTERNET_DISCONNECTED'))).toEqual([])
    await context.close()
  })
})

describe('incident', () => {
  it.each(SCREENS)('shows chart, consumers, movers and timeline in %s at %i px', async (scheme, width) => {
    const { id } = (await incidents()).find(({ title }) => title.includes('CPU saturation'))!
    const { context, page, errors } = await open(`/alerts/incidents/${id}`, { scheme, width })
    await page.locator('.chart canvas').first().waitFor()
    await page.getByRole('cell', { name: /postgres/ }).waitFor()
    await page.getByRole('cell', { name: /cpu.context_switches/ }).waitFor()
    await page.getByRole('link', { name: 'https://wiki.example/runbook' }).waitFor()
    await checkPage(page, `alerts-incident-${scheme}-${width}`)
    await closePage(context, errors)
  })

  it('keys comment, acknowledge and replay', async () => {
    const { id } = (await incidents()).find(({ title }) => title.includes('CPU saturation'))!
    const { context, page, errors } = await open(`/alerts/incidents/${id}`)
    await page.locator('.chart canvas').first().waitFor()
    await page.keyboard.press('c')
    await page.keyboard.type(HOSTILE)
    await page.keyboard.press('Enter')
    await page.getByRole('listitem').filter({ hasText: HOSTILE }).first().waitFor()
    await page.locator('h1').click()
    await page.keyboard.press('a')
    await page.getByRole('dialog').getByRole('button', { name: 'Acknowledge' }).click()
    await page.getByRole('button', { name: 'Unacknowledge' }).waitFor()
    await page.keyboard.press('m')
    await page.getByRole('dialog', { name: 'Silence alerts' }).waitFor()
    await page.keyboard.press('Escape')
    await page.getByRole('dialog').waitFor({ state: 'detached' })
    await page.keyboard.press('r')
    await expect.poll(() => new URL(page.url()).pathname).toMatch(/^\/hosts\//)
    expect(query(page).get('at')).toMatch(/^\d+$/)
    await closePage(context, errors)
  })
})

describe('rule', () => {
  it('threshold is dragged by keys and applied as suggested', async () => {
    const { context, page, errors } = await open('/alerts/rules/new?range=-24h')
    const field = page.getByRole('spinbutton', { name: /^Threshold/ })
    const handle = page.getByRole('slider', { name: 'Threshold' })
    await handle.waitFor()
    await handle.focus()
    await page.keyboard.press('ArrowDown')
    await expect.poll(() => field.inputValue()).toBe('89')
    await page.keyboard.press('Shift+ArrowDown')
    await expect.poll(() => field.inputValue()).toBe('79')
    const box = await stableBox(handle)
    await page.mouse.move(box.x + 10, box.y + 10)
    await page.mouse.down()
    await page.mouse.move(box.x + 10, box.y + 60, { steps: 4 })
    await page.mouse.up()
    await expect.poll(() => field.inputValue().then(Number)).toBeLessThan(60)
    await page
      .getByRole('status')
      .getByText(/Would (not )?have fired/)
      .waitFor()
    await page.getByText('6 hosts match').waitFor()
    await page.locator('.backtest[aria-busy=false]').waitFor()
    await checkPage(page, 'alerts-rule-new')
    await page.getByRole('button', { name: 'By tag' }).click()
    await page.getByRole('button', { name: 'role=web' }).click()
    await page.getByText('4 hosts match').waitFor()
    await closePage(context, errors)
  })

  it.each(SCREENS)('list shows what fires in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open('/alerts/rules', { scheme, width })
    await expect.poll(() => page.locator('tbody tr').first().textContent()).toContain('Network errors')
    await checkPage(page, `alerts-rules-${scheme}-${width}`)
    await closePage(context, errors)
  })
})

describe('silences', () => {
  beforeAll(async () => {
    const body = { matcher: { tags: ['role=db'], hosts: [], rules: [] }, comment: 'Reindex', ends_ms: Date.now() + 3_600_000, weekly: null }
    await site.request('POST', '/api/v1/silences', body)
  })

  it.each(SCREENS)('are a week and a list in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open('/alerts/silences', { scheme, width })
    await page.getByRole('region', { name: 'Calendar' }).waitFor()
    await page
      .getByRole('row', { name: /Reindex/ })
      .getByText('1 alert')
      .waitFor()
    await checkPage(page, `alerts-silences-${scheme}-${width}`)
    await page.getByRole('button', { name: 'Week after' }).click()
    expect(query(page).get('week')).toMatch(/^\d{4}-\d\d-\d\d$/)
    await page.getByRole('button', { name: 'List' }).click()
    await page.getByRole('region', { name: 'Calendar' }).waitFor({ state: 'detached' })
    expect(query(page).get('view')).toBe('list')
    await closePage(context, errors)
  })

  it('weekly window is created, edited and removed', async () => {
    const { context, page, errors } = await open('/alerts/silences')
    await page.getByRole('button', { name: 'New silence' }).click()
    const drawer = page.getByRole('dialog')
    await drawer.getByLabel('Comment').fill('Nightly backup')
    await drawer.getByRole('button', { name: 'Weekly maintenance window' }).click()
    await drawer.getByLabel('From').fill('02:00')
    await drawer.getByLabel('To', { exact: true }).fill('04:00')
    await checkPage(page, 'alerts-silence-drawer')
    await drawer.getByRole('button', { name: 'Create silence' }).click()
    // The rest of this week has no window left on a Sunday.
    await page.getByRole('button', { name: 'Week after' }).click()
    const event = page.locator('.event', { hasText: 'Nightly backup' })
    await event.last().waitFor()
    await event.last().click()
    await drawer.getByLabel('Comment').fill('Weekly backup')
    await drawer.getByRole('button', { name: 'Save' }).click()
    const row = page.getByRole('row', { name: /Weekly backup/ })
    await row.getByRole('button', { name: /^(End now|Remove)/ }).click()
    await drawer.getByRole('button', { name: /^(End now|Remove)$/ }).click()
    await row.waitFor({ state: 'detached' })
    await closePage(context, errors)
  })
})

describe('history', () => {
  it.each(SCREENS)('has filters in the address in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open('/alerts/history', { scheme, width })
    await page.getByRole('table').getByText('CPU saturation').waitFor()
    await page.getByRole('region', { name: 'Incidents per day' }).getByText('6 incidents').waitFor()
    await checkPage(page, `alerts-history-${scheme}-${width}`)
    await page.getByRole('combobox', { name: 'State' }).click()
    await page.getByRole('option', { name: 'Resolved' }).click()
    await page.getByRole('heading', { name: 'No matching incidents' }).waitFor()
    expect(query(page).get('state')).toBe('resolved')
    await page.getByRole('button', { name: 'Clear filter' }).click()
    await page.getByRole('searchbox', { name: 'Filter incidents' }).fill('saturation')
    await expect.poll(() => page.locator('tbody tr').count()).toBe(1)
    await closePage(context, errors)
  })
})

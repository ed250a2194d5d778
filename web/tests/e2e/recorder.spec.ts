// The page of a host with a day of history: flight recorder, replay, comparison, events, connection and details.
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkPage, closePage, openBrowser, openPage, SCREENSHOTS, stableBox, TestSite, type PageOptions } from './support'

const VIEWER = { name: 'vera', password: 'it rains all day' }
const BOOTS = ['6ccd780c-baba-4026-9564-5b8c656024db', '7ddd780c-baba-4026-9564-5b8c656024db']
const MINUTE = 60_000
const HOUR = 3_600_000
const INTERVAL_MS = 20_000
const CORES = 16
const SCREENS = [
  ['dark', 1440],
  ['light', 1440],
  ['dark', 390],
  ['light', 390],
] as const

let browser: Browser
let site: TestSite
let id = ''
const now = Math.floor(Date.now() / MINUTE) * MINUTE
/** A backup makes the host busy for 25 minutes. */
const BUSY = [now - 150 * MINUTE, now - 125 * MINUTE] as const
/** The agent stops, and later the host is off for half an hour. */
const STOPPED = [now - 18 * HOUR, now - 17 * HOUR] as const
const OFF = [now - 10 * HOUR, now - 9.5 * HOUR] as const

function rowAt(at: number, seq: number, boot: number) {
  const busy = at >= BUSY[0] && at < BUSY[1]
  const wave = Math.sin(at / 4e6) * 8 + Math.sin(at / 3e5) * 3
  const cpu = busy ? 93 + Math.sin(at / 9e4) * 3 : 32 + wave
  const process = (pid: number, name: string, share: number, command: string, started: number, parent = 1) => ({
    pid,
    parent_pid: parent,
    name,
    user: name === 'sshd' ? 'root' : 'postgres',
    command,
    cpu_percent: share,
    memory_bytes: Math.round(2e8 + share * 1e6),
    threads: 1 + (pid % 7),
    read_bytes: Math.round(share * 1e5),
    write_bytes: Math.round(share * 2e5),
    started_ms: Math.round(started),
  })
  const top = [
    process(1187, 'postgres', 60 + wave, 'postgres: checkpointer', now - 40 * HOUR),
    process(902, 'pgbouncer', 14, '/usr/sbin/pgbouncer', now - 40 * HOUR),
    process(411, 'sshd', 0.6, 'sshd: mira [priv]', now - 40 * HOUR),
  ]
  if (busy)
    top.push(
      process(21_884, 'postgres', 412, 'postgres: REINDEX TABLE CONCURRENTLY orders', BUSY[0], 1187),
      process(21_901, 'postgres', 208, 'postgres: parallel worker', BUSY[0], 1187),
    )
  else top.push(process(3_001, 'rsync', 21, 'rsync -a /data backup:', now - 40 * HOUR))
  const core = Object.fromEntries(
    Array.from({ length: CORES }, (_, n) => [String(n), { usage: Math.min(100, Math.max(0, cpu + ((n * 7) % 13) - 6)) }]),
  )
  return {
    host: 'db-03',
    boot: BOOTS[boot],
    seq,
    timestamp: at,
    interval_ms: INTERVAL_MS,
    cpu: {
      usage: cpu,
      user: cpu * 0.65,
      system: cpu * 0.2,
      iowait: cpu * 0.13,
      softirq: cpu * 0.02,
      cores: CORES,
      context_switches: cpu * 700,
      interrupts: cpu * 320,
      core,
    },
    load: { '1m': cpu / 4.4, '5m': cpu / 5, '15m': cpu / 6 },
    memory: { used: (busy ? 54 : 42) * 2 ** 30, cached: 9 * 2 ** 30, total: 64 * 2 ** 30, used_percent: busy ? 84.2 : 66 },
    pressure: { cpu: { some: cpu / 3 }, memory: { some: busy ? 9 : 0.4 }, io: { some: busy ? 48 : 6 + wave / 3, full: busy ? 31 : 3 } },
    network: { total: { rx_bytes: 7.8e6 + wave * 1e5, tx_bytes: 3.1e6 }, interface: { eth0: { rx_bytes: 7.8e6, tx_bytes: 3.1e6, up: 1 } } },
    disk: {
      total: { read_bytes: busy ? 3.1e8 : 4e7, write_bytes: busy ? 6.4e8 : 9e7 },
      device: {
        nvme0n1: { utilization: busy ? 97 : 22, read_bytes: 4e7, write_bytes: 9e7 },
        nvme1n1: { utilization: 9, read_bytes: 1e6, write_bytes: 1e6 },
      },
    },
    filesystem: {
      mount: {
        '/': { used_percent: 41, used: 4e10, size: 1e11, available: 6e10 },
        '/data': { used_percent: 72, used: 7.2e11, size: 1e12, available: 2.8e11 },
      },
    },
    tcp: { established: busy ? 1204 : 830, time_wait: 212, listen: 14 },
    processes: { total: 312, threads: 840, blocked: busy ? 6 : 0, top },
    system: { uptime: 1 },
  }
}

async function fill() {
  const rows = []
  let seq = 0
  for (let at = now - 28 * HOUR; at <= now; at += INTERVAL_MS) {
    const isOff = at > OFF[0] && at < OFF[1]
    if (isOff || (at > STOPPED[0] && at < STOPPED[1])) continue
    rows.push(rowAt(at, seq++, at > OFF[0] ? 1 : 0))
  }
  for (let at = 0; at < rows.length; at += 200)
    expect(await site.request('POST', '/ingest/metrics', rows.slice(at, at + 200))).toMatchObject({ rejected: [] })
}

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  const condition = { kind: 'threshold', metric: 'cpu.usage', threshold: 90 }
  await site.request('POST', '/api/v1/rules', {
    name: 'CPU saturation',
    severity: 'critical',
    enabled: true,
    hosts: {},
    for: '1m',
    condition,
  })
  await fill()
  await site.request('POST', '/ingest/metrics', [{ host: 'db-04', interval_ms: 20_000, cpu: { usage: 12 } }])
  await site.request('PUT', '/api/v1/hosts/db-03/tags', { tags: ['environment=production', 'region=eu-1', 'role=postgres'] })
  await site.createUser({ ...VIEWER, role: 'viewer', host_tags: ['role=postgres'] })
  id = (await site.request<{ id: string }>('GET', '/api/v1/hosts/db-03')).id
  site.startAgent('1s')
}, 180_000)
afterAll(async () => {
  await browser?.close()
  await site?.stop()
})

const open = (path: string, options: PageOptions = {}) => openPage(browser, site, path, options)

const at = BUSY[0] + 4 * MINUTE
const replay = (path = '') => `/hosts/${id}${path}?from=${BUSY[0] - 20 * MINUTE}&to=${BUSY[1] + 15 * MINUTE}&at=${at}`
const parameter = (page: Page, name: string) => Number(new URL(page.url()).searchParams.get(name))
const slider = (page: Page) => page.getByRole('slider', { name: 'Time' })
const dock = (page: Page) => page.getByRole('region', { name: 'Top processes' })
const eventsOf = (page: Page) => page.getByRole('region', { name: 'Events' }).getByRole('listitem')

describe('flight recorder', () => {
  it.each(SCREENS)('shows an instant with its figures and processes in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open(replay(), { scheme, width })
    await dock(page).getByText('REINDEX').waitFor()
    await expect.poll(() => page.locator('[data-metric="cpu.usage"] .note').textContent()).toMatch(/^\+\d+ pts in 5 min$/)
    await expect
      .poll(() => dock(page).locator('footer').textContent())
      .toMatch(/Compared with \d\d:\d\d:\s+2 new, 1 gone, postgres \+[56]\.\d cores/)
    expect(await dock(page).getByText('NEW', { exact: true }).count()).toBe(2)
    await expect.poll(() => page.locator('.sections').first().getAttribute('aria-busy')).not.toBe('true')
    await checkPage(page, `host-replay-${scheme}-${width}`)
    await page.screenshot({ path: `test-results/host-first-${scheme}-${width}.png` })
    await closePage(context, errors)
  })

  it('keys step by samples and events, and the address has the instant', async () => {
    const { context, page, errors } = await open(replay())
    await dock(page).getByText('REINDEX').waitFor()
    await page.keyboard.press('ArrowRight')
    await expect.poll(() => parameter(page, 'at')).toBe(at + INTERVAL_MS)
    await page.keyboard.press('Shift+ArrowLeft')
    await expect.poll(() => parameter(page, 'at')).toBe(at - 9 * INTERVAL_MS)
    await slider(page).press('ArrowLeft')
    await expect.poll(() => parameter(page, 'at')).toBe(at - 10 * INTERVAL_MS)
    // The event before is the alert; the one before that, hours earlier, moves the range.
    await page.getByRole('button', { name: 'Previous event' }).click()
    await expect.poll(() => parameter(page, 'at')).toBeLessThan(BUSY[0] + 2 * MINUTE)
    for (let n = 0; n < 3 && parameter(page, 'at') > OFF[1]; n++) {
      const before = parameter(page, 'at')
      await page.keyboard.press('p')
      await expect.poll(() => parameter(page, 'at')).toBeLessThan(before)
    }
    expect(parameter(page, 'at')).toBe(OFF[1])
    expect(parameter(page, 'from')).toBeLessThan(OFF[1])
    await page.keyboard.press('n')
    await expect.poll(() => parameter(page, 'at')).toBeGreaterThan(BUSY[0])
    await page.goBack()
    await expect.poll(() => parameter(page, 'at')).toBe(OFF[1])
    await closePage(context, errors)
  })

  it('the window is dragged, and a click shows an instant', async () => {
    const { context, page, errors } = await open(`/hosts/${id}?range=1h`)
    await slider(page).waitFor()
    const box = await stableBox(slider(page))
    const x = (time: number) => box.x + 62 + ((time - (now - 24 * HOUR)) / (24 * HOUR)) * (box.width - 76)
    await page.mouse.click(x(now - 6 * HOUR), box.y + 40)
    await expect.poll(() => Math.abs(parameter(page, 'at') - (now - 6 * HOUR))).toBeLessThan(10 * MINUTE)
    const [from, to] = [parameter(page, 'from'), parameter(page, 'to')]
    expect(to - from).toBe(HOUR)
    await page.mouse.move(x((from + to) / 2), box.y + 40)
    await page.mouse.down()
    await page.mouse.move(x((from + to) / 2 - 4 * HOUR), box.y + 40, { steps: 5 })
    await page.mouse.up()
    await expect.poll(() => Math.abs(parameter(page, 'from') - (from - 4 * HOUR))).toBeLessThan(20 * MINUTE)
    expect(parameter(page, 'at')).toBe(0)
    await page.mouse.move(x(parameter(page, 'from')), box.y + 40)
    await page.mouse.down()
    await page.mouse.move(x(parameter(page, 'from') - 2 * HOUR), box.y + 40, { steps: 5 })
    await page.mouse.up()
    await expect.poll(() => parameter(page, 'to') - parameter(page, 'from')).toBeGreaterThan(2.5 * HOUR)
    await page.getByRole('button', { name: '7 d', exact: true }).click()
    await expect.poll(() => new URL(page.url()).searchParams.get('span')).toBe('7d')
    await page.keyboard.press('l')
    await expect.poll(() => new URL(page.url()).search).toBe('?span=7d')
    await closePage(context, errors)
  })

  it('plays from an instant and pauses there', async () => {
    const { context, page, errors } = await open(replay())
    await dock(page).getByText('REINDEX').waitFor()
    await page.getByRole('combobox', { name: 'Speed' }).click()
    await page.getByRole('option', { name: '60×' }).click()
    await page.getByRole('button', { name: 'Play' }).click()
    await page.getByRole('button', { name: 'Pause' }).waitFor()
    await expect.poll(() => parameter(page, 'at'), { timeout: 10_000 }).toBeGreaterThan(at + 60_000)
    await page.getByRole('button', { name: 'Pause' }).click()
    await page.getByRole('button', { name: 'Play' }).waitFor()
    const paused = parameter(page, 'at')
    await page.waitForTimeout(600)
    expect(parameter(page, 'at')).toBe(paused)
    await page.getByRole('button', { name: 'Go live' }).click()
    await expect.poll(() => new URL(page.url()).search).toBe('')
    await closePage(context, errors)
  })
})

describe('comparison', () => {
  it('draws the day before and another host dashed', async () => {
    const { context, page, errors } = await open(replay())
    await dock(page).getByText('REINDEX').waitFor()
    await page.getByRole('button', { name: 'Compare', exact: true }).click()
    await page.getByRole('button', { name: 'Day before' }).click()
    await expect.poll(() => new URL(page.url()).searchParams.get('compare')).toBe('day')
    await page.locator('.chart li.ghost').first().waitFor()
    await checkPage(page, 'host-compare')
    await page.getByRole('button', { name: 'Compare: Day before' }).click()
    await page.getByRole('button', { name: /^Other host/ }).click()
    await page.getByRole('option', { name: 'db-04' }).click()
    await page.getByRole('button', { name: 'Compare: db-04' }).waitFor()
    await expect.poll(() => page.locator('.chart li.ghost').first().textContent()).toBe('db-04')
    await closePage(context, errors)
  })
})

describe('charts', () => {
  const chart = (page: Page) => page.locator('.chart').filter({ hasText: 'softirq' }).first()

  it.each(SCREENS)('full screen, table and events in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open(`/hosts/${id}?from=${OFF[0] - HOUR}&to=${OFF[1] + HOUR}`, { scheme, width })
    await chart(page).waitFor()
    await chart(page).hover()
    await chart(page).getByRole('button', { name: 'Full screen' }).click({ force: true })
    const dialog = page.getByRole('dialog')
    await dialog.locator('.uplot').waitFor()
    await checkPage(page, `chart-full-${scheme}-${width}`)
    await dialog.getByRole('button', { name: 'Table', exact: true }).click()
    await dialog.getByText('Host rebooted').waitFor()
    await dialog.getByText(/No data until .*: Host was down or restarted/).waitFor()
    expect(await dialog.locator('tbody tr').count()).toBeGreaterThan(20)
    await checkPage(page, `chart-table-${scheme}-${width}`)
    await page.keyboard.press('Escape')
    await closePage(context, errors)
  })

  it('a rule starts with the metric and the host of its chart', async () => {
    const { context, page, errors } = await open(replay(''))
    await chart(page).hover()
    await chart(page).getByRole('link', { name: 'Create rule' }).click()
    await page.getByText('1 host', { exact: false }).first().waitFor()
    expect(page.url()).toContain(`metric=cpu.usage&host=${id}`)
    await checkPage(page, 'chart-rule')
    await closePage(context, errors)
  })

  it('on a touch screen, a drag moves the range and a long press shows the values', async () => {
    const context = await browser.newContext({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true })
    await site.logIn(context)
    const page = await context.newPage()
    const [from, to] = [now - 3 * HOUR, now - 2 * HOUR]
    await page.goto(`${site.url}/hosts/${id}?from=${from}&to=${to}`)
    // The plot is built again when its data arrive and when it comes into view.
    await expect
      .poll(async () => {
        await chart(page).locator('.u-over').scrollIntoViewIfNeeded({ timeout: 1000 })
        return chart(page).locator('.legend b').first().textContent()
      })
      .toMatch(/\d/)
    const box = await stableBox(chart(page).locator('.u-over'))
    const client = await context.newCDPSession(page)
    const touch = (type: 'touchStart' | 'touchMove' | 'touchEnd', x?: number) =>
      client.send('Input.dispatchTouchEvent', { type, touchPoints: x === undefined ? [] : [{ x: box.x + x, y: box.y + box.height / 2 }] })
    await touch('touchStart', 50)
    await expect.poll(() => chart(page).locator('.time').textContent()).toMatch(/\d\d:\d\d:\d\d/)
    await touch('touchMove', 120)
    await page.screenshot({ path: `${SCREENSHOTS}/chart-touch-390.png` })
    await touch('touchEnd')
    await expect.poll(() => chart(page).locator('.time').textContent()).toBe('')
    await touch('touchStart', 60)
    for (const x of [80, 110, 140, 160]) await touch('touchMove', x)
    await touch('touchEnd')
    // The finger moved 100 px to the right: the range is earlier by this share of the plot.
    const expected = from - (100 / box.width) * (to - from)
    await expect.poll(() => Math.abs(Number(parameter(page, 'from')) - expected) < 60_000).toBe(true)
    await context.close()
  })
})

describe('tabs', () => {
  it.each(SCREENS)('events are filtered and replayed in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open(`/hosts/${id}/events`, { scheme, width })
    await eventsOf(page).getByText('Host rebooted').waitFor()
    await eventsOf(page).getByText('No data for 30 min').waitFor()
    await eventsOf(page).getByText('Agent was not running').waitFor()
    await eventsOf(page).getByText('CPU saturation').first().waitFor()
    await checkPage(page, `host-events-${scheme}-${width}`)
    await page.getByRole('button', { name: 'Reboots', exact: true }).click()
    await expect.poll(() => eventsOf(page).count()).toBe(1)
    expect(page.url()).toContain('kinds=reboots')
    await page.getByRole('link', { name: /^Replay Host rebooted/ }).click()
    await expect.poll(() => parameter(page, 'at')).toBe(OFF[1])
    await page.locator('.chart').first().waitFor()
    expect(page.url()).not.toContain('kinds')
    await closePage(context, errors)
  })

  it.each(SCREENS)('processes are summed over the range in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await open(replay('/processes'), { scheme, width })
    const table = page.getByRole('region', { name: 'Top processes' })
    await table.getByText('REINDEX').waitFor()
    await checkPage(page, `host-processes-${scheme}-${width}`)
    await page.getByRole('button', { name: 'Whole range', exact: true }).click()
    await table.getByText('rsync').first().waitFor()
    expect(page.url()).toContain('sum=1')
    await table.getByRole('button', { name: 'By name', exact: true }).click()
    await expect.poll(() => table.locator('tbody b').allTextContents()).toContain('postgres')
    expect((await table.locator('tbody b').allTextContents()).filter((name) => name === 'postgres')).toHaveLength(1)
    await table.getByRole('button', { name: 'Tree', exact: true }).click()
    // The two workers of the backup are below the process that started them.
    const depths = await table
      .locator('tbody td.process')
      .evaluateAll((cells) =>
        cells.map((cell) => [cell.querySelector('b')!.textContent, getComputedStyle(cell).getPropertyValue('--depth')]),
      )
    expect(depths.slice(0, 3)).toEqual([
      ['postgres', '0'],
      ['postgres', '1'],
      ['postgres', '1'],
    ])
    await checkPage(page, `host-processes-tree-${scheme}-${width}`)
    await table.getByRole('button', { name: 'List', exact: true }).click()
    await checkPage(page, `host-processes-range-${scheme}-${width}`)
    await closePage(context, errors)
  })

  it.each(SCREENS)('connection and details of an agent in %s at %i px', async (scheme, width) => {
    const agent = await site.request<{ id: string }>('GET', '/api/v1/hosts/e2e-host')
    const { context, page, errors } = await open(`/hosts/${agent.id}/connection`, { scheme, width })
    await page
      .getByRole('region', { name: 'Data', exact: true })
      .getByText(/waiting,/)
      .waitFor()
    await checkPage(page, `host-connection-${scheme}-${width}`)
    await page.getByRole('link', { name: 'Details' }).click()
    const collectors = page.getByRole('region', { name: 'Collectors' })
    await collectors.getByText('processes', { exact: true }).waitFor()
    await page.getByRole('region', { name: 'Alert rules' }).getByText('CPU saturation').waitFor()
    await checkPage(page, `host-details-${scheme}-${width}`)
    await closePage(context, errors)
  })

  it('tags are edited and become an event', async () => {
    const { context, page, errors } = await open(`/hosts/${id}/details`)
    await page.getByRole('region', { name: 'Tags' }).getByRole('button', { name: 'Edit' }).click()
    await page.getByRole('dialog').getByRole('textbox').fill('environment=staging, role=postgres')
    await page.getByRole('dialog').getByRole('button', { name: 'Save' }).click()
    await page.locator('.page-head').getByText('staging').waitFor()
    await page.getByRole('link', { name: /^Events/ }).click()
    await eventsOf(page).getByText('environment=staging, role=postgres').waitFor()
    await closePage(context, errors)
  })

  it('a limited viewer sees the host without changes by users, and no other host', async () => {
    const { context, page, errors } = await open(`/hosts/${id}/events`, { account: VIEWER })
    await eventsOf(page).getByText('Host rebooted').waitFor()
    expect(await eventsOf(page).getByText('Tags changed').count()).toBe(0)
    await page.getByRole('link', { name: 'Details' }).click()
    await page.getByRole('region', { name: 'Tags' }).waitFor()
    expect(await page.getByRole('button', { name: 'Edit' }).count()).toBe(0)
    await page.goto(`${site.url}/hosts/db-04`)
    await page.getByRole('heading', { name: 'Host not found' }).waitFor()
    await closePage(context, errors)
  })
})

describe('states', () => {
  it('failed requests are shown in their panels with a retry', async () => {
    const { context, page } = await open('/hosts')
    await page.route('**/api/v1/hosts/*/{series,events}**', (route) =>
      route.fulfill({ status: 500, contentType: 'application/json', body: '{"error":{"code":"internal_error","message":"broken"}}' }),
    )
    await page.goto(`${site.url}/hosts/${id}/events`)
    await page.getByRole('button', { name: 'Retry' }).nth(1).waitFor()
    await checkPage(page, 'host-events-error')
    await page.goto(`${site.url}/hosts/${id}?range=24h`)
    await page.getByRole('alert').getByText('Internal error of the hub').first().waitFor()
    await page.unroute('**/api/v1/hosts/*/{series,events}**')
    for (const button of await page.getByRole('button', { name: 'Retry' }).all()) await button.click()
    await page.locator('.chart').first().waitFor()
    await context.close()
  })

  it('a range without data says why', async () => {
    const { context, page, errors } = await open(`/hosts/${id}?from=${now - 40 * 24 * HOUR}&to=${now - 39 * 24 * HOUR}`)
    await page.getByRole('heading', { name: 'Not recorded' }).waitFor()
    await checkPage(page, 'host-not-recorded')
    await closePage(context, errors)
  })
})

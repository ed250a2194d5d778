// History in a real browser: ranges, zoom, processes at a time, gaps, reload.
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openBrowser, pageErrors, SCREENSHOTS, stableBox, TestSite } from './support'

let browser: Browser
let site: TestSite
const now = Math.floor(Date.now() / 60_000) * 60_000

/** Sends two days of snapshots at 20 s: a spike of one tick a day ago, a gap of one hour half a day ago. */
async function fill() {
  const rows = []
  for (let at = now - 2 * 86_400_000, seq = 0; at < now; at += 20_000, seq++) {
    if (at > now - 43_200_000 && at < now - 39_600_000) continue
    const spike = Math.abs(at - (now - 86_400_000)) < 10_000
    const cpu = spike ? 97.5 : 12 + 8 * Math.sin(seq / 200)
    rows.push({
      host: 'past',
      seq,
      timestamp: at,
      interval_ms: 20_000,
      boot: '6ccd780c-baba-4026-9564-5b8c656024db',
      cpu: { usage: cpu, user: cpu * 0.7, system: cpu * 0.3 },
      memory: { used: 3e9 + seq * 4096, total: 8e9, used_percent: 40 },
      load: { '1m': cpu / 25 },
      processes: {
        top: [{ pid: spike ? 666 : 1, name: spike ? 'burner' : 'init', user: 'root', cpu_percent: cpu, memory_bytes: 1e6, threads: 1 }],
      },
    })
  }
  for (let at = 0; at < rows.length; at += 500) {
    const answer = await fetch(`${site.url}/ingest/metrics`, {
      method: 'POST',
      body: JSON.stringify(rows.slice(at, at + 500)),
      headers: { 'content-type': 'application/json', authorization: `Bearer ${site.token}` },
    })
    expect(answer.status).toBe(200)
  }
}

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  await fill()
}, 60_000)
afterAll(async () => {
  await browser?.close()
  await site?.stop()
})

async function open(path: string, width = 1400): Promise<{ page: Page; errors: string[] }> {
  const context = await browser.newContext({ viewport: { width, height: 1000 }, colorScheme: 'dark' })
  await site.logIn(context)
  const page = await context.newPage()
  const errors = pageErrors(page)
  await page.goto(site.url + path)
  await chart(page, 'Load').locator('canvas').waitFor()
  return { page, errors }
}

const chart = (page: Page, title: string) => page.locator(`section.chart[aria-label="${title}"]`)
const points = async (page: Page) => Number(await chart(page, 'Load').getAttribute('data-points'))
const table = (page: Page) => page.locator('section[aria-label="Top processes"]')
const range = (page: Page) => new URL(page.url()).searchParams

describe('history', () => {
  it('range with gap and spike is reflected in the URL', async () => {
    const { page, errors } = await open('/hosts/past?range=7d')
    await expect.poll(() => points(page)).toBeGreaterThan(50)
    await page.getByRole('combobox', { name: 'Time range' }).click()
    await page.getByRole('option', { name: '24 hours' }).click()
    await expect.poll(() => range(page).get('range')).toBe('24h')
    await expect.poll(() => chart(page, 'Load').getAttribute('data-gaps')).toBe('1')
    await expect.poll(() => table(page).locator('tbody').textContent()).toContain('init')
    await page.screenshot({ path: join(SCREENSHOTS, 'history-24h.png'), fullPage: true })
    await page.reload()
    await expect.poll(() => chart(page, 'Load').getAttribute('data-gaps')).toBe('1')
    expect(range(page).get('range')).toBe('24h')
    expect(errors).toEqual([])
    await page.context().close()
  })

  it('zoom to a spike shows its processes', async () => {
    const { page, errors } = await open('/hosts/past?range=7d')
    await expect.poll(() => points(page)).toBeGreaterThan(50)
    await chart(page, 'Load').locator('.u-over').waitFor()
    const box = await stableBox(chart(page, 'Load').locator('.u-over'))
    const x = (at: number, from: number, to: number) => box.x + (box.width * (at - from)) / (to - from)
    // Six hours around the spike of a day ago.
    const [from, to] = [Date.now() - 7 * 86_400_000, Date.now()]
    await page.mouse.move(x(now - 26 * 3_600_000, from, to), box.y + 40)
    await page.mouse.down()
    await page.mouse.move(x(now - 22 * 3_600_000, from, to), box.y + 50, { steps: 5 })
    await page.mouse.up()
    await expect.poll(() => range(page).get('from')).not.toBeNull()
    const [zoomedFrom, zoomedTo] = [Number(range(page).get('from')), Number(range(page).get('to'))]
    expect(zoomedTo - zoomedFrom).toBeLessThan(6 * 3_600_000)
    await expect.poll(() => page.locator('.cockpit .sections').getAttribute('aria-busy')).toBe('false')
    await page.waitForTimeout(300)
    // A notice above the charts may have appeared.
    Object.assign(box, await stableBox(chart(page, 'Load').locator('.u-over')))
    await page.mouse.move(x(now - 86_400_000 + 5_000, zoomedFrom, zoomedTo), box.y + 30)
    await expect.poll(() => table(page).locator('.time-label').textContent()).toMatch(/^(\w+ \d+, )?\d\d:\d\d:\d\d$/)
    await page.mouse.click(x(now - 86_400_000 + 5_000, zoomedFrom, zoomedTo), box.y + 30)
    await expect.poll(() => range(page).get('at')).not.toBeNull()
    // The exact second, by URL.
    await page.goto(`${site.url}/hosts/past?from=${zoomedFrom}&to=${zoomedTo}&at=${now - 86_400_000 + 1_000}`)
    await expect.poll(() => table(page).locator('tbody').textContent()).toContain('burner')
    await page.screenshot({ path: join(SCREENSHOTS, 'history-instant.png'), fullPage: true })
    await page.keyboard.press('[')
    await expect.poll(() => range(page).get('at')).toBeNull()
    await expect.poll(() => Number(range(page).get('from'))).toBeLessThan(zoomedFrom)
    await page.keyboard.press('z')
    await page.keyboard.press('l')
    await expect.poll(() => range(page).get('from')).toBeNull()
    expect(errors).toEqual([])
    await page.context().close()
  })

  it('custom range and history of an offline host', async () => {
    const { page, errors } = await open('/hosts/past?range=24h', 390)
    await page.getByRole('combobox', { name: 'Time range' }).click()
    await page.getByRole('option', { name: 'Custom…' }).click()
    await page.getByRole('button', { name: 'Cancel' }).click()
    await page.getByRole('dialog').waitFor({ state: 'detached' })
    await page.locator('h1').click()
    await page.keyboard.press('c')
    await page.getByLabel('From', { exact: true }).fill('2020-01-01T00:00:00')
    await page.getByRole('button', { name: 'Apply' }).click()
    await expect.poll(() => Number(range(page).get('from'))).toBeLessThan(1_580_000_000_000)
    await expect.poll(() => points(page)).toBeGreaterThan(0)
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)
    expect(overflow).toBeLessThanOrEqual(0)
    await page.screenshot({ path: join(SCREENSHOTS, 'history-phone.png') })
    expect(errors).toEqual([])
    await page.context().close()
  })
})

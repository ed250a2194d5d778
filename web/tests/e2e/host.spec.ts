// The dashboard in a real browser against a real hub and agent.
import { AxeBuilder } from '@axe-core/playwright'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openBrowser, pageErrors, SCREENSHOTS, stableBox, TestSite } from './support'

const INTERVAL_MS = 500
const SOAK_S = Number(process.env.E2E_SOAK_S ?? 20)

let browser: Browser
let site: TestSite

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  site.startAgent(`${INTERVAL_MS}ms`)
})
afterAll(async () => {
  await browser?.close()
  await site?.stop()
})

async function open(scheme: 'dark' | 'light' = 'dark', width = 1600, height = 1000): Promise<{ page: Page; errors: string[] }> {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme })
  await site.logIn(context)
  const page = await context.newPage()
  const errors = pageErrors(page)
  await page.goto(`${site.url}/hosts`)
  await page.getByRole('link', { name: 'e2e-host', exact: true }).click()
  await page.waitForSelector('[data-metric="cpu.usage"]')
  return { page, errors }
}

const chart = (page: Page, title: string) => page.locator(`section.chart[aria-label="${title}"]`)
const points = async (page: Page, title: string) => Number(await chart(page, title).getAttribute('data-points'))
const picture = (page: Page, title: string) =>
  chart(page, title)
    .locator('canvas')
    .evaluate((canvas) => (canvas as HTMLCanvasElement).toDataURL())

describe('host page', () => {
  it('shows cards, live charts and the host name', async () => {
    const { page, errors } = await open()
    await expect.poll(() => page.locator('h1').textContent()).toBe('e2e-host')
    await expect.poll(() => page.locator('.state').getAttribute('data-state')).toBe('live')
    for (const metric of [
      'cpu.usage',
      'memory.used_percent',
      'load.1m',
      'network.total.rx_bytes',
      'disk.total.write_bytes',
      'filesystem.used_percent',
      'tcp.established',
    ]) {
      await expect.poll(() => page.locator(`[data-metric="${metric}"] .value`).textContent(), { message: metric }).toMatch(/\d/)
    }
    expect(await page.locator('section.chart').count()).toBeGreaterThanOrEqual(9)
    const [before, drawn] = [await points(page, 'CPU'), await picture(page, 'CPU')]
    await expect.poll(() => points(page, 'CPU')).toBeGreaterThan(before + 3)
    expect(await picture(page, 'CPU')).not.toBe(drawn)
    expect(errors).toEqual([])
    await page.context().close()
  })

  it('sorts and filters processes', async () => {
    const { page } = await open()
    const panel = page.locator('section[aria-label="Top processes"]')
    await page.locator('.tabs').getByRole('link', { name: 'Processes' }).click()
    await panel.locator('tbody tr').nth(2).waitFor()
    await page.getByRole('button', { name: 'Pause' }).click()
    const column = async (nth: number) => (await panel.locator(`tbody td:nth-child(${nth})`).allTextContents()).map(Number)
    await panel.getByRole('button', { name: 'PID' }).click()
    const down = await column(2)
    expect(down.length).toBeGreaterThan(2)
    expect(down).toEqual([...down].sort((a, b) => b - a))
    await panel.getByRole('button', { name: 'PID' }).click()
    expect(await column(2)).toEqual([...down].reverse())
    await page.keyboard.press('/')
    await page.keyboard.type('perfwatch agent')
    await expect.poll(() => panel.locator('tbody tr').count()).toBeLessThan(down.length)
    expect(await panel.locator('tbody').textContent()).toMatch(/perfwatch|No process matches/)
    await page.context().close()
  })

  it('pauses, zooms and goes live again', async () => {
    const { page } = await open()
    // The chart spans at least one minute; the zoom needs points in half of it.
    await expect.poll(() => points(page, 'Load'), { timeout: 40_000 }).toBeGreaterThan(45)
    await page.getByRole('button', { name: 'Pause' }).click()
    await expect.poll(() => page.locator('.state').getAttribute('data-state')).toBe('paused')
    const frozen = await picture(page, 'Load')
    await page.waitForTimeout(INTERVAL_MS * 4)
    expect(await picture(page, 'Load')).toBe(frozen)
    const box = await stableBox(chart(page, 'Load').locator('.u-over'))
    await page.mouse.move(box.x + box.width * 0.5, box.y + 40)
    await page.mouse.down()
    await page.mouse.move(box.x + box.width * 0.9, box.y + 50, { steps: 5 })
    await page.mouse.up()
    await expect.poll(() => page.locator('.range.fixed').textContent()).toMatch(/\d\d:\d\d:\d\d – /)
    // All charts share the zoom.
    expect(await picture(page, 'CPU')).not.toBe(frozen)
    await page.keyboard.press('l')
    await expect.poll(() => page.locator('.state').getAttribute('data-state')).toBe('live')
    expect(await page.locator('.range.fixed').count()).toBe(0)
    await page.context().close()
  })

  it('a selection survives new data and a change of colors', async () => {
    const { page } = await open()
    await expect.poll(() => points(page, 'Load'), { timeout: 40_000 }).toBeGreaterThan(10)
    const box = await stableBox(chart(page, 'Load').locator('.u-over'))
    await page.mouse.move(box.x + box.width * 0.5, box.y + 40)
    await page.mouse.down()
    await page.emulateMedia({ colorScheme: 'light' })
    await expect.poll(() => page.evaluate(() => matchMedia('(prefers-color-scheme: light)').matches)).toBe(true)
    await page.waitForTimeout(INTERVAL_MS * 4)
    await page.mouse.move(box.x + box.width * 0.9, box.y + 50, { steps: 5 })
    await page.mouse.up()
    await page.locator('.range.fixed').waitFor()
    await page.context().close()
  })

  it.each([
    ['dark', 1600, 1000],
    ['light', 1600, 1000],
    ['dark', 390, 844],
    ['light', 390, 844],
  ] as const)('is accessible and does not overflow in %s at %i px', async (scheme, width, height) => {
    const { page, errors } = await open(scheme, width, height)
    await expect.poll(() => points(page, 'CPU')).toBeGreaterThan(5)
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)
    expect(overflow).toBeLessThanOrEqual(0)
    const { violations } = await new AxeBuilder({ page }).analyze()
    const serious = violations.filter((v) => v.impact === 'serious' || v.impact === 'critical')
    expect(serious.map((v) => [v.id, v.nodes.map((node) => node.target.join(' '))])).toEqual([])
    await page.screenshot({ path: join(SCREENSHOTS, `host-${scheme}-${width}.png`), fullPage: true })
    expect(errors).toEqual([])
    await page.context().close()
  })

  it('page changes do not leak, and the cost per tick is printed', async () => {
    const { page } = await open()
    const session = await page.context().newCDPSession(page)
    await session.send('Performance.enable')
    const measure = async () => {
      await session.send('HeapProfiler.collectGarbage')
      const { metrics } = await session.send('Performance.getMetrics')
      return Object.fromEntries(metrics.map(({ name, value }) => [name, value])) as Record<string, number>
    }
    const visitHostPage = async () => {
      await page.getByRole('navigation').getByRole('link', { name: 'Hosts' }).click()
      await page.locator('main table').getByRole('link', { name: 'e2e-host', exact: true }).click()
      await page.locator('section.chart').first().waitFor()
    }
    for (let n = 0; n < 5; n++) await visitHostPage()
    const first = await measure()
    for (let n = 0; n < 50; n++) await visitHostPage()
    const switched = await measure()
    expect(switched.JSEventListeners! - first.JSEventListeners!).toBeLessThan(50)
    expect(switched.Nodes! - first.Nodes!).toBeLessThan(1_500)
    expect(switched.JSHeapUsedSize! - first.JSHeapUsedSize!).toBeLessThan(4 << 20)

    await page.waitForTimeout(SOAK_S * 1000)
    const last = await measure()
    const ticks = (SOAK_S * 1000) / INTERVAL_MS
    const per = (name: string) => (((last[name]! - switched[name]!) * 1000) / ticks).toFixed(2)
    const mb = (bytes: number) => (bytes / 1e6).toFixed(2)
    console.log(
      `browser, ${SOAK_S} s at ${INTERVAL_MS} ms: script ${per('ScriptDuration')} ms, layout ${per('LayoutDuration')} ms, ` +
        `task ${per('TaskDuration')} ms a tick; heap ${mb(switched.JSHeapUsedSize!)} → ${mb(last.JSHeapUsedSize!)} MB`,
    )
    await page.context().close()
  }, 600_000)
})

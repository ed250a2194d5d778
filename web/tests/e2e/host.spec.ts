// The dashboard in a real browser against a real hub and agent.
import { AxeBuilder } from '@axe-core/playwright'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { pageErrors, openBrowser, SHOTS, TestSite } from './support'

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

async function open(scheme: 'dark' | 'light' = 'dark', width = 1600, height = 1000): Promise<{ page: Page; problems: string[] }> {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme })
  await site.enter(context)
  const page = await context.newPage()
  const problems = pageErrors(page)
  await page.goto(site.url)
  await page.waitForSelector('[data-metric="cpu.usage"]')
  return { page, problems }
}

const chart = (page: Page, title: string) => page.locator(`section.chart[aria-label="${title}"]`)
const points = async (page: Page, title: string) => Number(await chart(page, title).getAttribute('data-points'))
const picture = (page: Page, title: string) =>
  chart(page, title)
    .locator('canvas')
    .evaluate((canvas) => (canvas as HTMLCanvasElement).toDataURL())

describe('host page', () => {
  it('fills cards, moves charts, and names the host', async () => {
    const { page, problems } = await open()
    await expect.poll(() => page.locator('h1').textContent()).toBe('e2e-host')
    await expect.poll(() => page.locator('.state').getAttribute('data-state')).toBe('Live')
    for (const metric of [
      'cpu.usage',
      'memory.used_percent',
      'load.1m',
      'network.total.rx_bytes',
      'disk.total.write_bytes',
      'filesystem.used_percent',
      'processes.total',
      'tcp.established',
    ]) {
      await expect.poll(() => page.locator(`[data-metric="${metric}"] .value`).textContent(), { message: metric }).toMatch(/\d/)
    }
    expect(await page.locator('section.chart').count()).toBeGreaterThanOrEqual(9)
    const [before, drawn] = [await points(page, 'CPU'), await picture(page, 'CPU')]
    await expect.poll(() => points(page, 'CPU')).toBeGreaterThan(before + 3)
    expect(await picture(page, 'CPU')).not.toBe(drawn)
    expect(problems).toEqual([])
    await page.context().close()
  })

  it('sorts and filters processes', async () => {
    const { page } = await open()
    const panel = page.locator('section[aria-label="Top processes"]')
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
    expect(await panel.locator('tbody').textContent()).toMatch(/perfwatch|None of/)
    await page.context().close()
  })

  it('pauses, zooms and goes live again', async () => {
    const { page } = await open()
    // A minute is shown at least: half of it must have something, or the zoom has nothing.
    await expect.poll(() => points(page, 'Load'), { timeout: 40_000 }).toBeGreaterThan(45)
    await page.getByRole('button', { name: 'Pause' }).click()
    await expect.poll(() => page.locator('.state').getAttribute('data-state')).toBe('Paused')
    const still = await picture(page, 'Load')
    await page.waitForTimeout(INTERVAL_MS * 4)
    expect(await picture(page, 'Load')).toBe(still)
    const box = (await chart(page, 'Load').locator('.u-over').boundingBox())!
    await page.mouse.move(box.x + box.width * 0.5, box.y + 40)
    await page.mouse.down()
    await page.mouse.move(box.x + box.width * 0.9, box.y + 50, { steps: 5 })
    await page.mouse.up()
    await expect.poll(() => page.locator('.range.fixed').textContent()).toMatch(/\d\d:\d\d:\d\d – /)
    // One zoom is everyone's.
    expect(await picture(page, 'CPU')).not.toBe(still)
    await page.keyboard.press('l')
    await expect.poll(() => page.locator('.state').getAttribute('data-state')).toBe('Live')
    expect(await page.locator('.range.fixed').count()).toBe(0)
    await page.context().close()
  })

  it('comes back by itself after a hub restart, the gap filled in', async () => {
    const { page, problems } = await open()
    await expect.poll(() => points(page, 'CPU')).toBeGreaterThan(5)
    await site.killHub()
    await expect.poll(() => page.locator('.state').getAttribute('data-state'), { timeout: 10_000 }).toBe('Reconnecting')
    await page.screenshot({ path: join(SHOTS, 'reconnecting.png') })
    const before = await points(page, 'CPU')
    await page.waitForTimeout(6_000)
    await site.startHub()
    await expect.poll(() => page.locator('.state').getAttribute('data-state'), { timeout: 30_000 }).toBe('Live')
    await expect.poll(() => points(page, 'CPU'), { timeout: 30_000 }).toBeGreaterThan(before + 12)
    await expect.poll(() => chart(page, 'CPU').getAttribute('data-gaps'), { timeout: 20_000 }).toBe('0')
    expect(problems).toEqual([])
    await page.context().close()
  })

  it.each([
    ['dark', 1600, 1000],
    ['light', 1600, 1000],
    ['dark', 390, 844],
    ['light', 390, 844],
  ] as const)('is accessible and whole in %s at %i px', async (scheme, width, height) => {
    const { page, problems } = await open(scheme, width, height)
    await expect.poll(() => points(page, 'CPU')).toBeGreaterThan(5)
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)
    expect(wide).toBeLessThanOrEqual(0)
    const { violations } = await new AxeBuilder({ page }).analyze()
    const serious = violations.filter((v) => v.impact === 'serious' || v.impact === 'critical')
    expect(serious.map((v) => [v.id, v.nodes.map((node) => node.target.join(' '))])).toEqual([])
    await page.screenshot({ path: join(SHOTS, `host-${scheme}-${width}.png`), fullPage: true })
    expect(problems).toEqual([])
    await page.context().close()
  })

  it('leaves nothing behind when pages change, and prints what it costs', async () => {
    const { page } = await open()
    const session = await page.context().newCDPSession(page)
    await session.send('Performance.enable')
    const measure = async () => {
      await session.send('HeapProfiler.collectGarbage')
      const { metrics } = await session.send('Performance.getMetrics')
      return Object.fromEntries(metrics.map(({ name, value }) => [name, value])) as Record<string, number>
    }
    const toAndFro = async () => {
      await page.locator('.brand').click()
      await page.getByRole('link', { name: 'e2e-host' }).click()
      await page.locator('section.chart').first().waitFor()
    }
    for (let n = 0; n < 5; n++) await toAndFro()
    const first = await measure()
    for (let n = 0; n < 50; n++) await toAndFro()
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

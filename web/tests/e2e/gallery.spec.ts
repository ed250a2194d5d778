// The gallery of components in a real browser, from the development server: builds do not contain it.
import { AxeBuilder } from '@axe-core/playwright'
import { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { createServer, type ViteDevServer } from 'vite'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkPage, openBrowser, pageErrors, SCREENSHOTS } from './support'

const ROOT = join(import.meta.dirname, '../..')

let browser: Browser
let server: ViteDevServer
let url: string

beforeAll(async () => {
  browser = await openBrowser()
  server = await createServer({
    root: ROOT,
    configFile: join(ROOT, 'vite.config.ts'),
    server: { host: '127.0.0.1', port: 0 },
    logLevel: 'error',
  })
  await server.listen()
  url = `http://127.0.0.1:${(server.httpServer!.address() as AddressInfo).port}/dev`
})
afterAll(async () => {
  await browser?.close()
  await server?.close()
})

async function openGallery(scheme: 'dark' | 'light', width: number) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme })
  const page = await context.newPage()
  const errors = pageErrors(page)
  await page.goto(url)
  await page.getByRole('heading', { name: 'Components' }).waitFor({ timeout: 60_000 })
  return { page, errors }
}

describe('gallery', () => {
  it.each([
    ['dark', 1440],
    ['light', 1440],
    ['dark', 390],
    ['light', 390],
  ] as const)('all components are accessible and fit in %s at %i px', async (scheme, width) => {
    const { page, errors } = await openGallery(scheme, width)
    await checkPage(page, `gallery-${scheme}-${width}`)
    for (const overlay of ['Menu', 'Popover', 'Dialog', 'Drawer']) {
      await page.getByRole('button', { name: overlay, exact: true }).click()
      const opened = page.locator('[role=menu], [role=dialog]')
      await opened.waitFor()
      await page.screenshot({ path: join(SCREENSHOTS, `gallery-${overlay.toLowerCase()}-${scheme}-${width}.png`) })
      const { violations } = await new AxeBuilder({ page }).include('[role=menu], [role=dialog]').analyze()
      expect(violations.map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`)).toEqual([])
      await page.keyboard.press('Escape')
      await opened.waitFor({ state: 'detached' })
      // The focus returns to the button that opened it.
      await expect.poll(() => page.evaluate(() => document.activeElement?.textContent?.trim())).toBe(overlay)
    }
    expect(errors).toEqual([])
    await page.context().close()
  })

  it('long lists are filtered by typing, and one option is chosen with the keyboard', async () => {
    const { page } = await openGallery('dark', 1440)
    await page.getByRole('button', { name: 'Host: host-7' }).click()
    await page.keyboard.type('host-1999')
    await page.getByRole('option', { name: 'host-1999' }).waitFor()
    await page.keyboard.press('Enter')
    await page.getByRole('button', { name: 'Host: host-1999' }).waitFor()
    await page.context().close()
  })
})

// Alerts in a real browser: a newcomer sets up a channel and a rule without reading anything, is
// told, looks at what was seen, takes it on; and every page is sound, wide and narrow.
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { pageErrors, openBrowser, TestSite, sound } from './support'

let browser: Browser
let site: TestSite
let sink: Server
let page: Page
const problems: unknown[] = []
const heard: { title: string; notice: string }[] = []

beforeAll(async () => {
  sink = createServer((request, answer) => {
    let body = ''
    request.on('data', (part) => (body += part))
    request.on('end', () => {
      heard.push(JSON.parse(body))
      answer.end()
    })
  })
  await new Promise<void>((done) => sink.listen(0, '127.0.0.1', done))
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  site.startAgent('1s')
  // Nothing but what the test asks for fires.
  const { rules } = await site.ask<{ rules: { rule: { id: string } }[] }>('GET', '/api/v1/rules')
  for (const { rule } of rules) if (!rule.id.endsWith('11')) await site.ask('DELETE', `/api/v1/rules/${rule.id}`)
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'dark' })
  await site.enter(context)
  page = await context.newPage()
  problems.push(pageErrors(page))
}, 120_000)
afterAll(async () => {
  await browser?.close()
  await site?.stop()
  sink?.close()
})

const badge = () => page.locator('header a[href="/alerts"]').first()

describe('alerts', () => {
  it('nothing is the matter at first', async () => {
    await page.goto(`${site.url}/alerts`)
    await page.getByRole('heading', { name: 'Nothing is the matter' }).waitFor()
    expect(await badge().getAttribute('aria-label')).toContain('nothing is the matter')
    await sound(page, 'alerts-none')
  })

  it('a channel is made, tried and kept, and its secret is not shown again', async () => {
    await page.getByRole('link', { name: 'channels' }).last().click()
    await page.getByRole('heading', { name: 'Nobody is told yet' }).waitFor()
    await page.getByRole('button', { name: 'New channel' }).click()
    await page.getByLabel('Kind').selectOption('webhook')
    await page.getByLabel('Name').fill('My program')
    await page.getByLabel('URL').fill(`http://127.0.0.1:${(sink.address() as AddressInfo).port}/hook`)
    await page.getByLabel('Signing secret').fill('a secret of mine')
    await page.getByRole('button', { name: 'Send a test' }).click()
    await expect.poll(() => heard.at(-1)?.notice).toBe('test')
    await page.getByText('It was taken').waitFor()
    await sound(page, 'alerts-channel')
    await page.getByRole('button', { name: 'Create channel' }).click()
    await page.getByText('warnings and worse').waitFor()
    await page.getByRole('button', { name: 'Change' }).click()
    await page.getByLabel('Signing secret').waitFor()
    expect(await page.content()).not.toContain('a secret of mine')
    await page.getByRole('button', { name: 'Cancel' }).click()
  })

  it('a rule says what it would have done before it is kept', async () => {
    // A back-test answers once, of what is there: there must be more than its two seconds.
    type Seen = { hosts: { first_seen_ms: number; last_seen_ms: number }[] }
    const seen = async () => (await site.ask<Seen>('GET', '/api/v1/hosts')).hosts.map((host) => host.last_seen_ms - host.first_seen_ms)
    await expect.poll(seen).toEqual([expect.toSatisfy((ms: number) => ms > 5000)])
    await page.getByRole('link', { name: 'Rules' }).click()
    await page.getByRole('link', { name: 'New rule' }).click()
    await page.getByLabel('Name').fill('Processes are there')
    await page.getByRole('combobox', { name: 'Metric', exact: true }).fill('processes.total')
    await page.getByLabel(/^Threshold/).fill('1')
    await page.getByLabel('Without a break for').fill('2s')
    await expect.poll(() => page.getByRole('status').textContent()).toContain('It would have fired once')
    await page.locator('.chart canvas').waitFor()
    await page.getByLabel('Without a break for').fill('soon')
    await expect.poll(() => page.locator('.test').textContent()).toContain('a time such as')
    await page.getByLabel('Without a break for').fill('2s')
    await expect.poll(() => page.getByRole('status').textContent()).toContain('It would have fired once')
    await sound(page, 'alerts-rule')
    await page.getByLabel('What to do about it').fill('Nothing: they should be.')
    await page.getByRole('button', { name: 'Create rule' }).click()
    await page.getByRole('link', { name: 'Processes are there' }).waitFor()
  })

  it('it fires: the bell, the message, the page of the incident, live', async () => {
    await expect.poll(() => heard.at(-1)?.notice, { timeout: 20_000 }).toBe('opened')
    await expect.poll(() => badge().getAttribute('aria-label')).toContain('1 warning')
    await badge().click()
    await page.getByText('Processes are there').first().waitFor()
    await sound(page, 'alerts-active')
    await page.getByText('Processes are there').first().click()
    await page.getByText('Largest consumers and movers').waitFor()
    await page.locator('.chart canvas').waitFor()
    expect(await page.locator('main').textContent()).toContain('Nothing: they should be.')
    await page.getByRole('button', { name: 'Acknowledge' }).click()
    await page.locator('dialog[open]').getByLabel('Comment').fill('mine')
    await page.locator('dialog[open]').getByRole('button', { name: 'Acknowledge' }).click()
    await page.getByText('takes it on: mine').waitFor()
    await page.getByRole('textbox', { name: 'Comment' }).last().fill('All is as it should be.')
    await page.getByRole('button', { name: 'Comment' }).click()
    await page.getByText('All is as it should be.').waitFor()
    await sound(page, 'alerts-incident')
    await page.setViewportSize({ width: 390, height: 860 })
    await page.emulateMedia({ colorScheme: 'light' })
    await sound(page, 'alerts-incident-phone')
  })

  it('a rule that goes takes its alert along, and the past knows of it', async () => {
    await page.goto(`${site.url}/alerts/rules`)
    await page.getByRole('link', { name: 'Processes are there' }).click()
    await sound(page, 'alerts-rule-phone')
    await page.getByRole('button', { name: 'Remove' }).click()
    await page.locator('dialog[open]').getByRole('button', { name: 'Remove' }).click()
    await expect.poll(() => heard.at(-1)?.notice).toBe('resolved')
    await expect.poll(() => badge().getAttribute('aria-label')).toContain('nothing is the matter')
    await page.getByRole('link', { name: 'History' }).click()
    await page.getByText('Processes are there').waitFor()
    await sound(page, 'alerts-history-phone')
    await page.getByRole('link', { name: 'Silences' }).click()
    await page.getByRole('button', { name: 'New silence' }).click()
    await page.getByLabel('each week').check()
    await sound(page, 'alerts-silence-phone')
    await page.locator('dialog[open]').getByRole('button', { name: 'Silence' }).click()
    await page.getByText('everything').waitFor()
    await page.goto(`${site.url}/alerts/channels`)
    await page.getByText('My program').first().waitFor()
    await sound(page, 'alerts-channels-phone')
    expect(problems.map(String)).toEqual([''])
  })
})

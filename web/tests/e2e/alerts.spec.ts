// Alerts in a real browser: channel, rule with backtest, incident, silence; each page wide and narrow.
import { createServer, type Server } from 'node:http'
import { type AddressInfo, createServer as createTcpServer, type Server as TcpServer } from 'node:net'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { pageErrors, openBrowser, TestSite, checkPage } from './support'

let browser: Browser
let site: TestSite
let sink: Server
let mailSink: TcpServer
let page: Page
const errors: unknown[] = []
const received: { title: string; reason: string }[] = []

/** SMTP server that refuses the recipients whose address starts with "gone". */
function createMailSink(): TcpServer {
  return createTcpServer((socket) => {
    let inData = false
    socket.write('220 sink\r\n')
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk) => {
      const text = chunk.toString()
      if (inData && !text.endsWith('\r\n.\r\n')) return
      const reply = inData ? '250 ok' : text.startsWith('DATA') ? '354 continue' : text.includes('<gone@') ? '550 no such user' : '250 ok'
      inData = reply.startsWith('354')
      socket.write(`${reply}\r\n`)
    })
  })
}

beforeAll(async () => {
  sink = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk) => (body += chunk))
    request.on('end', () => {
      received.push(JSON.parse(body))
      response.end()
    })
  })
  await new Promise<void>((done) => sink.listen(0, '127.0.0.1', done))
  mailSink = createMailSink()
  await new Promise<void>((done) => mailSink.listen(0, '127.0.0.1', done))
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  site.startAgent('1s')
  // Built-in rules could fire during the test.
  const { rules } = await site.request<{ rules: { rule: { id: string } }[] }>('GET', '/api/v1/rules')
  for (const { rule } of rules) if (!rule.id.endsWith('11')) await site.request('DELETE', `/api/v1/rules/${rule.id}`)
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'dark' })
  await site.logIn(context)
  page = await context.newPage()
  errors.push(pageErrors(page))
}, 120_000)
afterAll(async () => {
  await browser?.close()
  await site?.stop()
  sink?.close()
  mailSink?.close()
})

const badge = () => page.locator('header a.incidents')

describe('alerts', () => {
  it('no open incidents initially', async () => {
    await page.goto(`${site.url}/alerts`)
    await page.getByRole('heading', { name: 'No active incidents' }).waitFor()
    expect(await badge().getAttribute('title')).toContain('no active incidents')
    await checkPage(page, 'alerts-none')
  })

  it('channel can be tested and saved without exposing its secret', async () => {
    await page.getByRole('link', { name: 'Manage channels' }).click()
    await page.getByRole('heading', { name: 'No channels yet' }).waitFor()
    await page.getByRole('button', { name: 'New channel' }).click()
    await page.getByLabel('Kind', { exact: true }).click()
    await page.getByRole('option', { name: 'Webhook', exact: true }).click()
    await page.getByLabel('Name', { exact: true }).fill('My program')
    await page.getByLabel('URL').fill(`http://127.0.0.1:${(sink.address() as AddressInfo).port}/hook`)
    await page.getByLabel('Signing secret').fill('a secret of mine')
    await page.getByRole('button', { name: 'Send test' }).click()
    await expect.poll(() => received.at(-1)?.reason).toBe('test')
    await page.getByText('Accepted by the service').waitFor()
    await checkPage(page, 'alerts-channel')
    await page.getByRole('button', { name: 'Create channel' }).click()
    await page.getByRole('region', { name: 'My program' }).getByText('Warning and above').waitFor()
    await page.getByRole('button', { name: 'Edit My program' }).click()
    await page.getByLabel('Signing secret').waitFor()
    expect(await page.content()).not.toContain('a secret of mine')
    await page.getByRole('button', { name: 'Cancel' }).click()
  })

  it('recipients that refuse a test mail are named', async () => {
    const settings = {
      to: 'ops@example.org, gone@example.org',
      from: 'perfwatch@example.org',
      server: '127.0.0.1',
      port: String((mailSink.address() as AddressInfo).port),
      security: 'none',
    }
    await site.request('POST', '/api/v1/channels', { name: 'Mail', kind: 'email', settings, filter: { min_severity: 'info' } })
    await page.reload()
    await page.getByRole('region', { name: 'Mail', exact: true }).getByRole('button', { name: 'Send test' }).click()
    await page.getByText('Accepted for some recipients. gone@example.org refused: 550 no such user').waitFor()
  })

  it('rule form shows a backtest', async () => {
    // A backtest covers recorded data only, which must exceed the hold time of two seconds.
    type HostTimes = { hosts: { first_seen_ms: number; last_seen_ms: number }[] }
    const recordedMs = async () =>
      (await site.request<HostTimes>('GET', '/api/v1/hosts')).hosts.map((host) => host.last_seen_ms - host.first_seen_ms)
    await expect.poll(recordedMs).toEqual([expect.toSatisfy((ms: number) => ms > 5000)])
    await page.getByRole('link', { name: 'Rules' }).click()
    await page.getByRole('link', { name: 'New rule' }).click()
    await page.getByLabel('Name', { exact: true }).fill('Processes are there')
    await page.getByRole('button', { name: /^Metric: / }).click()
    await page.getByPlaceholder('Filter', { exact: true }).fill('processes.total')
    await page.getByRole('option', { name: 'processes.total' }).click()
    await page.getByRole('spinbutton', { name: /^Threshold/ }).fill('1')
    await page.getByLabel('For', { exact: true }).fill('2s')
    await expect.poll(() => page.locator('main').getByRole('status').textContent()).toContain('Would have fired once')
    await page.locator('.chart canvas').waitFor()
    await page.getByLabel('For', { exact: true }).fill('soon')
    await expect.poll(() => page.locator('.backtest').textContent()).toContain('a duration such as')
    await page.getByLabel('For', { exact: true }).fill('2s')
    await expect.poll(() => page.locator('main').getByRole('status').textContent()).toContain('Would have fired once')
    await checkPage(page, 'alerts-rule')
    await page.getByLabel('Runbook note').fill('Nothing: they should be.')
    await page.getByRole('button', { name: 'Create rule' }).click()
    await page.getByRole('link', { name: 'Processes are there' }).waitFor()
  })

  it('rule with an unknown metric has a warning', async () => {
    const condition = { kind: 'threshold', metric: 'cpu.usge', threshold: 90 }
    await site.request('POST', '/api/v1/rules', { name: 'Misspelled', condition })
    await page.goto(`${site.url}/alerts/rules`)
    await page.getByText('did you mean cpu.usage?').waitFor()
    await checkPage(page, 'alerts-rules-warning')
    await page.getByRole('link', { name: 'Misspelled' }).click()
    await page.getByText('did you mean cpu.usage?').waitFor()
    await page.getByText('Unknown metric: the rule fires only if a host sends it').waitFor()
  })

  it('firing alert updates badge, notification and incident page', async () => {
    await expect.poll(() => received.at(-1)?.reason, { timeout: 20_000 }).toBe('opened')
    await expect.poll(() => badge().getAttribute('title')).toContain('1 warning')
    await badge().click()
    await page.getByText('Processes are there').first().waitFor()
    await checkPage(page, 'alerts-active')
    await page.getByText('Processes are there').first().click()
    await page.getByText('Largest consumers and movers').waitFor()
    await page.locator('.chart canvas').waitFor()
    expect(await page.locator('main').textContent()).toContain('Nothing: they should be.')
    await page.getByRole('button', { name: 'Acknowledge' }).click()
    await page.getByRole('dialog').getByLabel('Comment').fill('mine')
    await page.getByRole('dialog').getByRole('button', { name: 'Acknowledge' }).click()
    await page.getByText('acknowledged: mine').waitFor()
    await page.getByRole('textbox', { name: 'Comment' }).last().fill('All is as it should be.')
    await page.getByRole('button', { name: 'Comment' }).click()
    await page.getByText('All is as it should be.').waitFor()
    await checkPage(page, 'alerts-incident')
    await page.setViewportSize({ width: 390, height: 860 })
    await page.emulateMedia({ colorScheme: 'light' })
    await checkPage(page, 'alerts-incident-phone')
  })

  it('deleting a rule resolves its alert', async () => {
    await page.goto(`${site.url}/alerts/rules`)
    await page.getByRole('link', { name: 'Processes are there' }).click()
    await checkPage(page, 'alerts-rule-phone')
    await page.getByRole('button', { name: 'Remove' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click()
    await expect.poll(() => received.at(-1)?.reason).toBe('resolved')
    await expect.poll(() => badge().getAttribute('title')).toContain('no active incidents')
    await page.getByRole('link', { name: 'History' }).click()
    await page.getByText('Processes are there').waitFor()
    await checkPage(page, 'alerts-history-phone')
    await page.getByRole('link', { name: 'Silences' }).click()
    await page.getByRole('button', { name: 'New silence' }).click()
    await page.getByRole('button', { name: 'Weekly maintenance window' }).click()
    await checkPage(page, 'alerts-silence-phone')
    await page.getByRole('dialog').getByRole('button', { name: 'Create silence' }).click()
    await page.getByRole('cell', { name: 'everything' }).waitFor()
    await page.goto(`${site.url}/alerts/channels`)
    await page.getByText('My program').first().waitFor()
    await page.getByText('gone@example.org: refused, 550 no such user').first().waitFor()
    await page.getByText('Sent to some').first().waitFor()
    await checkPage(page, 'alerts-channels-phone')
    await page.setViewportSize({ width: 1280, height: 900 })
    await checkPage(page, 'alerts-channels')
    expect(errors.map(String)).toEqual([''])
  })
})

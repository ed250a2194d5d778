// Mail server of the hub and defaults of new channels in a real browser, with a mail server on loopback.
import { createServer, type Server } from 'node:net'
import type { AddressInfo } from 'node:net'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkPage, closePage, openBrowser, openPage, TestSite } from './support'

const SCREENS = [
  ['dark', 1440],
  ['light', 390],
] as const

let browser: Browser
let site: TestSite
let smtp: Server
const mails: string[] = []

/** Mail server that accepts every mail. */
function startMailServer(): Promise<Server> {
  const server = createServer((socket) => {
    let buffer = ''
    let isData = false
    socket.on('error', () => socket.destroy())
    socket.write('220 test\r\n')
    socket.on('data', (data: Buffer) => {
      buffer += data.toString()
      for (let end = buffer.indexOf(isData ? '\r\n.\r\n' : '\r\n'); end >= 0; end = buffer.indexOf(isData ? '\r\n.\r\n' : '\r\n')) {
        const text = buffer.slice(0, end)
        buffer = buffer.slice(end + (isData ? 5 : 2))
        if (isData) mails.push(text)
        isData = !isData && text === 'DATA'
        socket.write(isData ? '354 go on\r\n' : '250 accepted\r\n')
        if (text === 'QUIT') socket.end()
      }
    })
  })
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)))
}

beforeAll(async () => {
  browser = await openBrowser()
  smtp = await startMailServer()
  site = new TestSite()
  await site.startHub()
}, 60_000)
afterAll(async () => {
  smtp?.close()
  await browser?.close()
  await site?.stop()
})

const field = (page: Page, name: string) => page.getByLabel(name, { exact: false }).first()
const stored = () => site.request<{ settings: Record<string, string>; channels: number }>('GET', '/api/v1/settings/mail')

describe('mail server', () => {
  it.each(SCREENS)('is tested, saved and used in %s at %i px', async (scheme, width) => {
    const { context, page, errors } = await openPage(browser, site, '/settings/notifications', { scheme, width })
    await field(page, 'SMTP server').fill('127.0.0.1')
    await page.getByRole('combobox', { name: 'Encryption' }).click()
    await page.getByRole('option', { name: 'None' }).click()
    await field(page, 'Port').fill(String((smtp.address() as AddressInfo).port))
    await field(page, 'Sender').fill('PerfWatch <perfwatch@example.org>')
    await field(page, 'Test recipient').fill('me@example.org')
    await page.getByRole('button', { name: 'Send test mail' }).click()
    await page.getByText('Accepted by the mail server').waitFor()
    expect(mails.at(-1)).toContain('To: me@example.org')
    expect((await stored()).settings).toEqual({})
    await page.getByRole('button', { name: 'Save', exact: true }).click()
    await page.getByText('Saved. In effect on all hubs.').waitFor()
    expect((await stored()).settings).toMatchObject({ server: '127.0.0.1', from: 'PerfWatch <perfwatch@example.org>' })
    await page.getByText('No channel uses this server.').waitFor()
    await checkPage(page, `settings-mail-${scheme}-${width}`)
    await page.getByRole('button', { name: 'Remove', exact: true }).click()
    await page.getByText('Mail server removed').waitFor()
    expect((await stored()).settings).toEqual({})
    await closePage(context, errors)
  })

  it('a changed server asks for the password again', async () => {
    const { context, page, errors } = await openPage(browser, site, '/settings/notifications')
    await field(page, 'SMTP server').fill('mail.example.org')
    await field(page, 'User').fill('perfwatch')
    await field(page, 'Password').fill('mail password')
    await field(page, 'Sender').fill('perfwatch@example.org')
    await page.getByRole('button', { name: 'Save', exact: true }).click()
    await page.getByText('Saved. In effect on all hubs.').waitFor()
    expect(await field(page, 'Password').inputValue()).toBe('')
    await field(page, 'SMTP server').fill('other.example.org')
    await page.getByText('the stored password belongs to the previous server').waitFor()
    await checkPage(page, 'settings-mail-moved')
    await page.getByRole('button', { name: 'Save', exact: true }).click()
    await page.getByText(/secret is required because the server changed/i).waitFor()
    expect((await stored()).settings.server).toBe('mail.example.org')
    await closePage(context, errors)
  })

  it('new channels start with the defaults and without a server', async () => {
    const { context, page, errors } = await openPage(browser, site, '/settings/notifications')
    await field(page, 'Repeat interval').fill('4h')
    await page.getByLabel('Send when resolved').uncheck()
    await page.getByRole('button', { name: 'Save changes' }).click()
    await page.getByText('Saved. In effect on all hubs.').last().waitFor()
    await page.goto(`${site.url}/alerts/channels`)
    await page
      .getByRole('button', { name: /channel/i })
      .first()
      .click()
    await page.getByLabel('Repeat every').waitFor()
    await expect.poll(() => page.getByLabel('Repeat every').inputValue()).toBe('4h')
    expect(await page.getByLabel('Send when resolved').isChecked()).toBe(false)
    await page.getByLabel('Name').fill('Team')
    await page.getByLabel('To', { exact: true }).fill('ops@example.org')
    await checkPage(page, 'channel-hub-mail')
    await page.getByRole('button', { name: 'Create channel' }).click()
    await expect.poll(async () => (await stored()).channels).toBe(1)
    await page.goto(`${site.url}/settings/notifications`)
    await page.getByText('1 channel uses this server.').waitFor()
    expect(await page.getByRole('button', { name: 'Remove', exact: true }).isDisabled()).toBe(true)
    await closePage(context, errors)
  })
})

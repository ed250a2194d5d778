// Agentless hosts in a real browser with a real sshd: adding, testing, a rejected key, the queue.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { pageErrors, openBrowser, TestSite, checkPage } from './support'

let browser: Browser
let site: TestSite
let page: Page
let sshd: ChildProcess
let port = 0
const errors: unknown[] = []
const folder = mkdtempSync(join(tmpdir(), 'perfwatch-sshd-'))
const file = (name: string) => join(folder, name)

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as { port: number }
  await new Promise((done) => server.close(done))
  return port
}

async function startSshd() {
  for (const name of ['host', 'accepted', 'rejected']) execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', file(name)])
  writeFileSync(file('authorized'), readFileSync(file('accepted.pub')))
  mkdirSync('/run/sshd', { recursive: true })
  port = await freePort()
  const lines = [
    `Port ${port}`,
    'ListenAddress 127.0.0.1',
    `HostKey ${file('host')}`,
    `AuthorizedKeysFile ${file('authorized')}`,
    'PidFile none',
    'StrictModes no',
    'UsePAM no',
    'UseDNS no',
    'PermitRootLogin yes',
    'MaxSessions 1',
  ]
  writeFileSync(file('config'), lines.join('\n'))
  sshd = spawn('/usr/sbin/sshd', ['-D', '-e', '-f', file('config')], { stdio: 'ignore' })
}

beforeAll(async () => {
  await startSshd()
  browser = await openBrowser()
  site = new TestSite()
  await site.startHub()
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'dark' })
  await site.logIn(context)
  page = await context.newPage()
  errors.push(pageErrors(page))
}, 120_000)
afterAll(async () => {
  await browser?.close()
  await site?.stop()
  sshd?.kill()
  rmSync(folder, { recursive: true, force: true })
})

const drawer = () => page.getByRole('dialog')

describe('agentless hosts', () => {
  it('adds a server after a connection test and shows its metrics', async () => {
    await page.goto(site.url)
    await page.getByRole('link', { name: 'look at it over SSH' }).click()
    await page.getByRole('heading', { name: 'No server yet' }).waitFor()
    await checkPage(page, 'servers-none')
    await page.getByRole('button', { name: 'New server' }).first().click()
    await drawer().getByLabel('Name', { exact: true }).fill('db-1')
    await drawer().getByLabel('Address').fill('127.0.0.1')
    await drawer().getByLabel('Port').fill(String(port))
    await drawer().getByLabel('User').fill(userInfo().username)
    await drawer().getByLabel('Private key', { exact: true }).fill('not a key')
    await drawer().getByRole('button', { name: 'Try the connection' }).click()
    await drawer().getByText('It does not work').waitFor()
    await drawer()
      .getByLabel('Private key', { exact: true })
      .fill(readFileSync(file('accepted'), 'utf8'))
    await drawer().getByLabel('Looked at every').fill('30s')
    await drawer().getByRole('button', { name: 'Create server' }).click()
    await drawer().getByRole('alert').getByText('at least 60 s').waitFor()
    await drawer().getByLabel('Looked at every').fill('1m')
    await drawer().getByRole('button', { name: 'Try the connection' }).click()
    await drawer().getByText('It works').waitFor()
    await checkPage(page, 'servers-form')
    await drawer().getByRole('button', { name: 'Create server' }).click()
    await page.getByRole('link', { name: 'db-1' }).waitFor()
    await page.getByText('fine').waitFor()
    await expect
      .poll(() => page.getByRole('row', { name: /db-1/ }).getByRole('cell').nth(3).textContent(), { timeout: 10_000 })
      .toMatch(/^[\d.]+%$/)
    expect(await page.content()).not.toContain('OPENSSH PRIVATE KEY-----\\n')
    await checkPage(page, 'servers')
  })

  it('host page updates on demand', async () => {
    await page.getByRole('link', { name: 'db-1' }).click()
    await page.getByText('Looked at over SSH').waitFor()
    await expect.poll(() => page.url()).toContain('range=24h')
    await page.locator('.chart canvas').first().waitFor()
    await checkPage(page, 'servers-host')
    await page.goto(page.url().replace('range=24h', 'range=5m'))
    await expect.poll(() => page.locator('[data-metric="cpu.usage"]').textContent(), { timeout: 25_000 }).toMatch(/\d/)
    const queue = () => site.request<{ held: number }>('GET', '/api/v1/servers/metrics/queue/stats')
    await expect.poll(async () => (await queue()).held).toBe(1)
  })

  it('rejected key blocks further collections', async () => {
    const server = {
      name: 'locked',
      address: '127.0.0.1',
      port,
      user: userInfo().username,
      enabled: true,
      login: { kind: 'key', key: readFileSync(file('rejected'), 'utf8') },
    }
    await site.request('POST', '/api/v1/servers', server)
    await page.goto(`${site.url}/servers`)
    await page
      .getByRole('row', { name: /locked/ })
      .getByText('not let in')
      .waitFor()
    const totals = page.getByLabel('All servers together')
    await totals.getByText('on average').waitFor()
    await totals.getByText('not let in').waitFor()
    await page
      .getByRole('row', { name: /locked/ })
      .getByRole('link', { name: 'Connection' })
      .click()
    await page.getByRole('heading', { name: 'It is not tried any more' }).waitFor()
    await page.getByRole('button', { name: 'Steps' }).first().click()
    await checkPage(page, 'servers-refused')
    await page.goto(`${site.url}/servers`)
    await page.getByRole('row', { name: /db-1/ }).getByRole('link', { name: 'Connection' }).click()
    await page.getByRole('button', { name: 'Try the connection' }).click()
    await page.getByText('It works').waitFor()
    await checkPage(page, 'servers-connection')
    await page.setViewportSize({ width: 390, height: 860 })
    await page.emulateMedia({ colorScheme: 'light' })
    await checkPage(page, 'servers-connection-phone')
  })

  it('queue lists jobs and can be paused', async () => {
    await page.goto(`${site.url}/servers/queue`)
    await page.getByRole('link', { name: 'locked' }).waitFor()
    await page.getByRole('button', { name: 'Pause' }).click()
    await page.getByText('No look is begun').waitFor()
    await checkPage(page, 'servers-queue-phone')
    await page.getByRole('button', { name: 'Resume' }).click()
    await page.setViewportSize({ width: 1280, height: 900 })
    await page.emulateMedia({ colorScheme: 'dark' })
    await page.getByRole('button', { name: /^Done/ }).click()
    await page.getByRole('link', { name: 'db-1' }).first().waitFor()
    await checkPage(page, 'servers-queue')
    await page.getByRole('link', { name: 'Servers' }).click()
    await page.getByRole('button', { name: 'Look at all now' }).click()
    await page.getByText('One server is looked at').waitFor()
    await page.getByRole('button', { name: 'Import…' }).click()
    await drawer().getByLabel('Text').fill('Host db-1\n  HostName 127.0.0.1\nHost new-1\n  HostName 127.0.0.1\n  Port 1\n')
    await drawer().getByText('is there already').waitFor()
    await drawer().getByText('login: it is needed').waitFor()
    await drawer().getByLabel('User, where none is said').fill('watch')
    await drawer()
      .getByLabel('Private key', { exact: true })
      .fill(readFileSync(file('accepted'), 'utf8'))
    await drawer().getByLabel('look at them').uncheck()
    await drawer().getByRole('button', { name: 'Create 1' }).waitFor()
    await checkPage(page, 'servers-import')
    await drawer().getByRole('button', { name: 'Create 1' }).click()
    await page.getByRole('link', { name: 'new-1' }).waitFor()
    await page.setViewportSize({ width: 390, height: 860 })
    await checkPage(page, 'servers-phone')
    expect(errors.map(String)).toEqual([''])
  })
})

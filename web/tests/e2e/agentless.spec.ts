// Agentless hosts in a real browser with a real sshd: adding, testing, a rejected key, the queue.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkPage, openBrowser, pageErrors, TestSite } from './support'

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

const dialog = () => page.getByRole('dialog')
const keyField = () => dialog().getByRole('textbox', { name: 'Private key' })
const row = (name: string) => page.getByRole('row', { name: new RegExp(name) })

describe('agentless hosts', () => {
  it('adds a server after a connection test and shows its metrics', async () => {
    await page.goto(site.url)
    await page.getByRole('link', { name: 'Add SSH host' }).click()
    await page.getByRole('heading', { name: 'No agentless hosts' }).waitFor()
    await checkPage(page, 'servers-none')
    await page.getByRole('button', { name: 'Add SSH host' }).first().click()
    await dialog().getByLabel('Name', { exact: true }).fill('db-1')
    await dialog().getByLabel('Address').fill('127.0.0.1')
    await dialog().getByLabel('Port').fill(String(port))
    await dialog().getByLabel('User').fill(userInfo().username)
    await keyField().fill('not a key')
    await dialog().getByRole('button', { name: 'Test connection' }).click()
    await dialog().getByRole('alert').getByText('not a private key').waitFor()
    await keyField().fill(readFileSync(file('rejected'), 'utf8'))
    await dialog().getByRole('button', { name: 'Test connection' }).click()
    await dialog().getByText('Connection failed').waitFor()
    await keyField().fill(readFileSync(file('accepted'), 'utf8'))
    await dialog().getByLabel('Interval').fill('30s')
    await dialog().getByRole('button', { name: 'Create' }).click()
    await dialog().getByRole('alert').getByText('at least 60s').waitFor()
    await dialog().getByLabel('Interval').fill('1m')
    await dialog().getByRole('button', { name: 'Test connection' }).click()
    await dialog().getByText('Connection works').waitFor()
    await checkPage(page, 'servers-form')
    await dialog().getByRole('button', { name: 'Create' }).click()
    await page.getByRole('link', { name: 'db-1' }).waitFor()
    await row('db-1').getByText('OK', { exact: true }).waitFor()
    await expect.poll(() => row('db-1').getByRole('cell').nth(3).textContent(), { timeout: 10_000 }).toMatch(/^[\d.]+%$/)
    expect(await page.content()).not.toContain('OPENSSH PRIVATE KEY-----\\n')
    await checkPage(page, 'servers')
  })

  it('host page updates on demand', async () => {
    await page.getByRole('link', { name: 'db-1' }).click()
    await page.getByText('Collected over SSH every').waitFor()
    await expect.poll(() => page.url()).toContain('range=24h')
    await page.locator('.chart canvas').first().waitFor()
    await checkPage(page, 'servers-host')
    await page.goto(page.url().replace('range=24h', 'range=5m'))
    await expect.poll(() => page.locator('[data-metric="cpu.usage"]').textContent(), { timeout: 25_000 }).toMatch(/\d/)
    const queue = () => site.request<{ open_connections: number }>('GET', '/api/v1/servers/metrics/queue/stats')
    await expect.poll(async () => (await queue()).open_connections).toBe(1)
  })

  it('rejected key blocks further collections', async () => {
    const server = {
      name: 'locked',
      address: '127.0.0.1',
      port,
      user: userInfo().username,
      enabled: true,
      credentials: { kind: 'key', key: readFileSync(file('rejected'), 'utf8') },
    }
    await site.request('POST', '/api/v1/servers', server)
    await page.goto(`${site.url}/servers`)
    await row('locked').getByText('Authentication failed', { exact: true }).waitFor()
    const totals = page.getByRole('region', { name: 'Totals' })
    await totals.getByText('average').waitFor()
    await totals.getByText('Authentication failed').waitFor()
    await row('locked').getByRole('link', { name: 'Connection' }).click()
    await page.getByRole('heading', { name: 'Paused until edited' }).waitFor()
    await page.getByRole('button', { name: 'Stages' }).first().click()
    await checkPage(page, 'servers-blocked')
    await page.goto(`${site.url}/servers`)
    await row('db-1').getByRole('link', { name: 'Connection' }).click()
    await page.getByRole('button', { name: 'Test connection' }).click()
    await page.getByText('Connection works').waitFor()
    await checkPage(page, 'servers-connection')
    await page.setViewportSize({ width: 390, height: 860 })
    await page.emulateMedia({ colorScheme: 'light' })
    await checkPage(page, 'servers-connection-phone')
  })

  it('queue lists jobs and can be paused', async () => {
    await page.goto(`${site.url}/servers/queue`)
    await page.getByRole('link', { name: 'locked' }).waitFor()
    await page.getByRole('button', { name: 'Pause' }).click()
    await page.getByText('Collections are paused on all hubs.').waitFor()
    await checkPage(page, 'servers-queue-phone')
    await page.getByRole('button', { name: 'Resume' }).click()
    await page.setViewportSize({ width: 1280, height: 900 })
    await page.emulateMedia({ colorScheme: 'dark' })
    await page.getByRole('button', { name: /^Succeeded/ }).click()
    await page.getByRole('link', { name: 'db-1' }).first().waitFor()
    await checkPage(page, 'servers-queue')
    await page.getByRole('navigation', { name: 'Agentless hosts' }).getByRole('link', { name: 'Hosts' }).click()
    await page.getByRole('button', { name: 'Collect all now' }).click()
    await page.getByText('1 collection started').waitFor()
    await page.getByRole('button', { name: 'Import…' }).click()
    await dialog().getByLabel('Text').fill('Host db-1\n  HostName 127.0.0.1\nHost new-1\n  HostName 127.0.0.1\n  Port 1\n')
    await dialog().getByText('already exists').waitFor()
    await dialog().getByText('credentials: required').waitFor()
    await dialog().getByLabel('Default user').fill('perfwatch')
    await keyField().fill(readFileSync(file('accepted'), 'utf8'))
    await dialog().getByLabel('Enabled').uncheck()
    await dialog().getByRole('button', { name: 'Create 1' }).waitFor()
    await checkPage(page, 'servers-import')
    await dialog().getByRole('button', { name: 'Create 1' }).click()
    await page.getByRole('link', { name: 'new-1' }).waitFor()
    await page.setViewportSize({ width: 390, height: 860 })
    await checkPage(page, 'servers-phone')
    expect(errors.map(String)).toEqual([''])
  })
})

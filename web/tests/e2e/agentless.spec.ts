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
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: 'dark' })
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

const SCREENS = [
  ['dark', 1440],
  ['light', 1440],
  ['light', 390],
  ['dark', 390],
] as const

/** Checks the page in both themes on a wide and on a narrow screen. */
async function checkScreens(name: string) {
  for (const [scheme, width] of SCREENS) {
    await page.setViewportSize({ width, height: width < 700 ? 844 : 900 })
    await page.emulateMedia({ colorScheme: scheme })
    await checkPage(page, `${name}-${scheme}-${width}`)
  }
  await page.setViewportSize({ width: 1440, height: 900 })
  await page.emulateMedia({ colorScheme: 'dark' })
}
const openList = async (query = '') => {
  await page.goto(`${site.url}/agentless${query}`)
  await page.locator('main table').waitFor()
}
const server = (name: string, key: string, changes: object = {}) => ({
  name,
  address: '127.0.0.1',
  port,
  user: userInfo().username,
  enabled: true,
  credentials: { kind: 'key', key: readFileSync(file(key), 'utf8') },
  ...changes,
})

describe('agentless hosts', () => {
  it('adds a server after a connection test and shows its metrics', async () => {
    await page.goto(`${site.url}/servers`)
    await page.getByRole('heading', { name: 'No agentless hosts' }).waitFor()
    expect(page.url()).toBe(`${site.url}/agentless`)
    await checkScreens('agentless-none')
    await page.getByRole('button', { name: 'Add SSH host' }).click()
    await dialog().getByRole('button', { name: 'Add host' }).click()
    await dialog().getByText('A host name or an IP address').waitFor()
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
    await checkScreens('agentless-form-failed')
    await keyField().fill(readFileSync(file('accepted'), 'utf8'))
    await dialog().getByLabel('Interval').fill('30s')
    await dialog().getByLabel('Tags').fill('role=db')
    await dialog().getByText('A duration of at least 60s').waitFor()
    await dialog().getByLabel('Interval').fill('1m')
    await dialog().getByRole('button', { name: 'Test connection' }).click()
    await dialog().getByText('Connection works').waitFor()
    await dialog().getByText('This key is pinned with the first collection').waitFor()
    await checkScreens('agentless-form')
    await dialog().getByRole('button', { name: 'Add host' }).click()
    await row('db-1').getByText('Succeeded', { exact: true }).waitFor()
    await expect.poll(() => row('db-1').getByRole('cell').nth(5).textContent(), { timeout: 10_000 }).toMatch(/^[\d.]+%$/)
    expect(await page.content()).not.toContain('OPENSSH PRIVATE KEY-----\\n')
  })

  it('steps of a test are shown while it runs', async () => {
    await openList('?drawer=add')
    await dialog().getByLabel('Address').fill('127.0.0.1')
    await dialog().getByLabel('Port').fill(String(port))
    await dialog().getByLabel('User').fill(userInfo().username)
    await keyField().fill(readFileSync(file('accepted'), 'utf8'))
    await dialog().getByRole('button', { name: 'Test connection' }).click()
    // The probe runs twice with a pause: the first steps are there long before the result.
    await dialog().getByRole('status').getByText('Authentication').waitFor()
    expect(await dialog().getByText('Connection works').count()).toBe(0)
    await dialog().getByText('Connection works').waitFor()
  })

  it('a left form keeps a draft without secrets and asks once', async () => {
    await dialog().getByLabel('Name', { exact: true }).fill('half-done')
    await page.keyboard.press('Escape')
    await dialog().getByText('There are unsaved changes.').waitFor()
    await checkPage(page, 'agentless-form-leave')
    await dialog().getByRole('button', { name: 'Keep draft' }).click()
    await dialog().waitFor({ state: 'detached' })
    expect(page.url()).toBe(`${site.url}/agentless`)
    await openList('?drawer=add')
    await dialog().getByText('Draft of an earlier visit.').waitFor()
    expect(await dialog().getByLabel('Name', { exact: true }).inputValue()).toBe('half-done')
    expect(await keyField().inputValue()).toBe('')
    await dialog().getByRole('button', { name: 'Discard draft' }).click()
    expect(await dialog().getByLabel('Name', { exact: true }).inputValue()).toBe('')
    await page.keyboard.press('Escape')
    await dialog().waitFor({ state: 'detached' })
  })

  it('host page updates on demand', async () => {
    await page.getByRole('link', { name: 'db-1', exact: true }).first().click()
    await page.getByText('Collected over SSH every').waitFor()
    await page.goto(`${page.url().split('?')[0]}?range=5m`)
    await expect.poll(() => page.locator('[data-metric="cpu.usage"]').textContent(), { timeout: 25_000 }).toMatch(/\d/)
    const queue = () => site.request<{ open_connections: number }>('GET', '/api/v1/servers/metrics/queue/stats')
    await expect.poll(async () => (await queue()).open_connections).toBe(1)
  })

  it('lists errors with their reason; filter and sort are in the address', async () => {
    await site.request('POST', '/api/v1/servers', server('locked', 'rejected', { tags: ['role=edge'] }))
    await site.request('POST', '/api/v1/servers', server('closed', 'accepted', { port: 1, tags: ['role=edge'] }))
    await site.request('POST', '/api/v1/servers', server('later', 'accepted', { enabled: false }))
    await openList('?sort=state-desc')
    await row('locked').getByText('Authentication failed', { exact: true }).waitFor()
    await row('locked').getByText('rejected').waitFor()
    await row('closed').getByText('Failing', { exact: true }).waitFor({ timeout: 20_000 })
    const totals = page.getByRole('region', { name: 'Totals' })
    await totals.getByText('1 needs review').waitFor()
    await checkScreens('agentless')
    await page.getByRole('searchbox').fill('-role=edge db')
    await expect.poll(() => page.getByRole('row').count()).toBe(2)
    await expect.poll(() => page.url()).toContain('filter=-role')
    await page.getByRole('searchbox').fill('nothing')
    await page.getByText('No host matches the filter').waitFor()
    await page.getByRole('button', { name: 'Clear filter' }).click()
    await page.getByRole('button', { name: 'CPU' }).click()
    await expect.poll(() => page.url()).toContain('sort=cpu-desc')
  })

  it('acts on several hosts', async () => {
    await page.getByLabel('Select locked').check()
    await page.getByLabel('Select later').check()
    await page.getByRole('button', { name: 'Tags…' }).click()
    await dialog().getByLabel('Add tags').fill('checked')
    await dialog().getByRole('button', { name: 'Save' }).click()
    await page.getByText('1 host changed').waitFor()
    await page.getByText('Paused until edited, and never collected').waitFor()
    const { servers } = await site.request<{ servers: { name: string; tags: string[]; blocked: unknown }[] }>('GET', '/api/v1/servers')
    const locked = servers.find(({ name }) => name === 'locked')!
    expect([locked.tags, locked.blocked !== null]).toEqual([['role=edge'], true])
    expect(servers.find(({ name }) => name === 'later')!.tags).toEqual(['checked'])
    await checkPage(page, 'agentless-selection')
    await page.getByRole('button', { name: 'Enable' }).click()
    await expect.poll(() => row('later').getByText('Succeeded', { exact: true }).count(), { timeout: 20_000 }).toBe(1)
    await page.getByRole('button', { name: 'Remove…' }).click()
    const remove = dialog().getByRole('button', { name: 'Remove 2 hosts' })
    expect(await remove.isDisabled()).toBe(true)
    await dialog().getByLabel('Type "remove 2 hosts" to confirm').fill('remove 2 hosts')
    await checkPage(page, 'agentless-remove')
    await remove.click()
    await dialog().waitFor({ state: 'detached' })
    await expect.poll(() => row('later').count()).toBe(0)
    await row('db-1').getByRole('button', { name: 'Collect db-1 now' }).click()
    await page.getByText('Collection of db-1 started').waitFor()
  })

  it('a changed host key is reviewed', async () => {
    const { servers } = await site.request<{ servers: { id: string; name: string }[] }>('GET', '/api/v1/servers')
    const { id } = servers.find(({ name }) => name === 'db-1')!
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', file('host2')])
    writeFileSync(file('config'), readFileSync(file('config'), 'utf8').replace(file('host'), file('host2')))
    sshd.kill()
    await new Promise((done) => sshd.once('exit', done))
    sshd = spawn('/usr/sbin/sshd', ['-D', '-e', '-f', file('config')], { stdio: 'ignore' })
    await page.getByRole('button', { name: 'Edit db-1' }).click()
    await dialog().getByRole('button', { name: 'Test connection' }).click()
    await dialog().getByText('The host key differs from the pinned one.').waitFor()
    await checkPage(page, 'agentless-form-key')
    await page.keyboard.press('Escape')
    await site.request('POST', `/api/v1/servers/${id}/test`)
    await row('db-1').getByRole('button', { name: 'Review the host key of db-1' }).click({ timeout: 20_000 })
    await dialog().getByText('Offered key').waitFor()
    await checkScreens('agentless-key')
    await dialog().getByRole('button', { name: 'Accept' }).click()
    await row('db-1').getByText('Succeeded', { exact: true }).waitFor({ timeout: 20_000 })
  })

  it('imports hosts in steps', async () => {
    await page.getByRole('button', { name: 'Import' }).click()
    await dialog().getByLabel('Text').fill('Host db-1\n  HostName 127.0.0.1\nHost new-1\n  HostName 127.0.0.1\n  Port 1\n')
    await checkScreens('agentless-import')
    await dialog().getByRole('button', { name: 'Check' }).click()
    await dialog().getByText('0 to add').waitFor()
    await dialog().getByText('credentials: required').waitFor()
    await checkScreens('agentless-import-plan')
    await dialog().getByRole('button', { name: 'Back' }).click()
    await dialog().getByLabel('Default user').fill('perfwatch')
    await keyField().fill(readFileSync(file('accepted'), 'utf8'))
    await dialog().getByLabel('Collect the hosts at once').uncheck()
    await dialog().getByRole('button', { name: 'Check' }).click()
    await dialog().getByRole('button', { name: 'Add 1 host' }).click()
    await dialog().getByText('1 host added').waitFor()
    await checkPage(page, 'agentless-import-result')
    await dialog().getByRole('button', { name: 'Show hosts' }).click()
    await row('new-1').waitFor()
  })

  it('imports an Ansible inventory', async () => {
    await page.getByRole('button', { name: 'Import' }).click()
    await dialog().getByText('YAML', { exact: true }).click()
    await dialog().getByText('A list of hosts, or an Ansible inventory').waitFor()
    const inventory =
      'all:\n  children:\n    lab:\n      vars: {ansible_user: perfwatch, ansible_password: x}\n      hosts:\n' +
      '        inventory-[1:2]: {ansible_port: 1}\n        box: {ansible_connection: docker}\n'
    await dialog().getByLabel('Text').fill(inventory)
    await checkScreens('agentless-import-yaml')
    await dialog().getByLabel('Collect the hosts at once').uncheck()
    await dialog().getByRole('button', { name: 'Check' }).click()
    await dialog().getByText('is not SSH').waitFor()
    await dialog().getByLabel('Leave out 1 invalid line').check()
    await dialog().getByRole('button', { name: 'Add 2 hosts' }).click()
    await dialog().getByRole('button', { name: 'Show hosts' }).click()
    await row('inventory-2').waitFor()
    const { servers } = await site.request<{ servers: { name: string; port: number; tags: string[] }[] }>('GET', '/api/v1/servers')
    expect(servers.find(({ name }) => name === 'inventory-1')).toMatchObject({ port: 1, tags: ['lab'] })
  })

  it('queue lists jobs by state and can be paused', async () => {
    await site.request('POST', '/api/v1/servers', server('refused', 'rejected'))
    await page.goto(`${site.url}/servers/queue`)
    await page.getByRole('tab', { name: /^Failed/ }).waitFor()
    expect(page.url()).toBe(`${site.url}/agentless/queue`)
    await page.getByRole('link', { name: 'refused' }).first().waitFor({ timeout: 20_000 })
    await page.getByRole('region', { name: 'Collections' }).waitFor()
    await checkScreens('agentless-queue')
    await page.getByRole('button', { name: 'Pause queue' }).click()
    await page.getByText('Collections are paused on all hubs.').waitFor()
    await checkPage(page, 'agentless-queue-paused')
    await page.getByRole('button', { name: 'Resume' }).click()
    await page.getByRole('button', { name: 'Retry all' }).click()
    await page.getByText(/collected again\. Hosts that are disabled/).waitFor()
    await page.getByRole('tab', { name: /^Succeeded/ }).click()
    await page.getByRole('tabpanel').getByRole('link', { name: 'db-1', exact: true }).first().waitFor()
    expect(page.url()).toContain('state=completed')
    await checkPage(page, 'agentless-queue-succeeded')
    await page.getByRole('navigation', { name: 'Agentless hosts' }).getByRole('link', { name: 'Hosts' }).click()
    await page.getByRole('button', { name: 'Collect all now' }).click()
    await page.getByText(/collections? started/).waitFor()
    expect(errors.map(String)).toEqual([''])
  })
})

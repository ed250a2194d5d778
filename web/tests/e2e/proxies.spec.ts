// The dashboard behind nginx: live with the documented configurations, told what is wrong with others.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ADMIN, checkPage, openBrowser, pageErrors, TestSite } from './support'

const PAGE = readFileSync(join(import.meta.dirname, '../../../docs/PROXIES.md'), 'utf8')
/** Name that resolves to this machine in the test's browser. Plain HTTP to it is no secure context. */
const HOST = 'watch.example'

let browser: Browser
let site: TestSite
let folder: string
const proxies: ChildProcess[] = []
const sites: TestSite[] = []

beforeAll(async () => {
  browser = await openBrowser(`--host-resolver-rules=MAP ${HOST} 127.0.0.1`)
  folder = mkdtempSync(join(tmpdir(), 'perfwatch-proxy-'))
  const subject = ['-subj', `/CN=${HOST}`, '-days', '2', '-nodes', '-newkey', 'rsa:2048']
  execFileSync('openssl', ['req', '-x509', ...subject, '-keyout', `${folder}/proxy.key`, '-out', `${folder}/proxy.pem`], {
    stdio: 'ignore',
  })
  site = await startSite({ PERFWATCH_HUB_TRUSTED_PROXIES: '127.0.0.1' })
})
afterAll(async () => {
  await browser?.close()
  for (const proxy of proxies) proxy.kill()
  for (const started of sites) await started.stop()
  rmSync(folder, { recursive: true, force: true })
})

async function startSite(env: Record<string, string>): Promise<TestSite> {
  const started = new TestSite(true, env)
  sites.push(started)
  await started.startHub()
  started.startAgent('500ms')
  return started
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as { port: number }
  await new Promise((done) => server.close(done))
  return port
}

const documented = (name: string) => new RegExp(`<!-- config: ${name} -->\n\`\`\`nginx\n([\\s\\S]*?)\`\`\``).exec(PAGE)![1]!
const server = (directives: string, tls = true) =>
  `server { listen 443${tls ? ' ssl' : ''}; ssl_certificate /etc/ssl/watch.example.pem; ssl_certificate_key /etc/ssl/watch.example.key;
    location / { proxy_pass http://127.0.0.1:8000; ${directives} } }`

/** Starts nginx in front of a hub. */
async function startProxy(config: string, hub: TestSite, port: number) {
  const name = join(folder, String(port))
  const servers = config
    .replaceAll('127.0.0.1:8000', hub.address)
    .replaceAll('listen 443', `listen 127.0.0.1:${port}`)
    .replaceAll('/etc/ssl/watch.example.pem', `${folder}/proxy.pem`)
    .replaceAll('/etc/ssl/watch.example.key', `${folder}/proxy.key`)
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((part) => `${part}_temp_path ${name}-${part};`).join(' ')
  writeFileSync(
    `${name}.conf`,
    `daemon off; master_process off; user root; pid ${name}.pid; events {} http { access_log off; ${temporary}\n${servers}\n}`,
  )
  const proxy = spawn('/usr/sbin/nginx', ['-e', 'stderr', '-c', `${name}.conf`], { stdio: ['ignore', 'ignore', 'inherit'] })
  proxy.on('error', () => {})
  proxies.push(proxy)
  const isListening = () =>
    new Promise<boolean>((done) => {
      const socket = connect(port, '127.0.0.1', () => done(true)).on('error', () => done(false))
      socket.on('connect', () => socket.destroy())
    })
  await expect.poll(isListening, { message: 'nginx: run scripts/ensure-proxies' }).toBe(true)
}

async function openPage(url: string, width = 1280): Promise<{ page: Page; errors: string[] }> {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width, height: 860 } })
  const page = await context.newPage()
  const errors = pageErrors(page)
  await page.goto(url)
  return { page, errors }
}

const notices = (page: Page) => page.locator('.notices')
const state = (page: Page) => page.locator('.state').getAttribute('data-state')

async function logIn(page: Page) {
  await page.getByLabel('Name').fill(ADMIN.name)
  await page.getByLabel('Password').fill(ADMIN.password)
  await page.getByRole('button', { name: 'Log in' }).click()
}

/** Opens the page of the only host. */
async function openHost(page: Page) {
  await page.getByRole('navigation').first().getByRole('link', { name: 'Hosts' }).click()
  await page.waitForURL('**/hosts')
  await page.locator('main table').getByRole('link', { name: 'e2e-host', exact: true }).click()
}

/** Logs in and waits for live data. */
async function expectLive(page: Page, errors: string[]) {
  await page.getByLabel('Password').waitFor()
  await page.waitForLoadState('networkidle')
  expect(await notices(page).count()).toBe(0)
  await logIn(page)
  await expect.poll(() => state(page)).toBe('live')
  expect(errors).toEqual([])
  await openHost(page)
  await expect.poll(() => state(page)).toBe('live')
  await page.reload()
  await expect.poll(() => state(page)).toBe('live')
  await page.context().close()
}

describe('behind nginx', () => {
  it('is live at the root of a port', async () => {
    const port = await freePort()
    await startProxy(documented('nginx'), site, port)
    const { page, errors } = await openPage(`https://${HOST}:${port}/`)
    await expectLive(page, errors)
  })

  it('is live below a path, passed or stripped', async () => {
    const port = await freePort()
    const url = `https://${HOST}:${port}/perfwatch/`
    const hub = await startSite({ PERFWATCH_HUB_TRUSTED_PROXIES: '127.0.0.1', PERFWATCH_HUB_PUBLIC_URL: url })
    await startProxy(documented('nginx-path'), hub, port)
    const { page, errors } = await openPage(url)
    await expectLive(page, errors)
    const stripped = await freePort()
    await startProxy(documented('nginx-path').replaceAll('8000;', '8000/;'), site, stripped)
    const { page: other } = await openPage(`https://${HOST}:${stripped}/perfwatch/`)
    await expect.poll(() => notices(other).textContent()).toContain(`hub.public_url to https://${HOST}:${stripped}/perfwatch/`)
    await logIn(other)
    await openHost(other)
    await expect.poll(() => new URL(other.url()).pathname).toMatch(/^\/perfwatch\/hosts\//)
    await expect.poll(() => state(other)).toBe('live')
    await other.context().close()
  })

  it('names a host that the proxy changes', async () => {
    const port = await freePort()
    const plain = await startSite({})
    await startProxy(server('', false), plain, port)
    for (const width of [1280, 390]) {
      const { page } = await openPage(`http://${HOST}:${port}/`, width)
      await expect.poll(() => notices(page).textContent()).toContain(`set hub.public_url to http://${HOST}:${port}`)
      await expect.poll(() => notices(page).textContent()).toContain('WebSocket')
      await logIn(page)
      await expect.poll(() => page.locator('[role=alert]').textContent()).toContain('hub.public_url')
      await checkPage(page, `login-proxy-${width}`)
      await page.context().close()
    }
  })

  it('logs in over HTTPS although the proxy changes the host', async () => {
    const port = await freePort()
    const directives = 'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;'
    await startProxy(server(`${directives} proxy_set_header Host $host:443; proxy_set_header X-Forwarded-Proto https;`), site, port)
    const { page } = await openPage(`https://${HOST}:${port}/`)
    await expect.poll(() => notices(page).textContent()).toContain('hub.public_url')
    await logIn(page)
    await expect.poll(() => state(page)).toBe('live')
    await page.context().close()
  })

  it('polls if the proxy passes no WebSocket', async () => {
    const port = await freePort()
    await startProxy(server('proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https;'), site, port)
    const { page } = await openPage(`https://${HOST}:${port}/`)
    await expect.poll(() => notices(page).textContent()).toContain('Pass the headers Upgrade and Connection')
    await logIn(page)
    await expect.poll(() => state(page)).toBe('polling')
    await openHost(page)
    const points = async () => Number(await page.locator('section.chart[aria-label="CPU"]').getAttribute('data-points'))
    await expect.poll(points).toBeGreaterThan(2)
    const before = await points()
    await expect.poll(points).toBeGreaterThan(before)
    await page.getByText('No live connection').waitFor()
    await checkPage(page, 'host-polling')
    await page.setViewportSize({ width: 390, height: 860 })
    await checkPage(page, 'host-polling-phone')
    await page.context().close()
  })

  it('names a path that the hub does not know', async () => {
    const port = await freePort()
    await startProxy(documented('nginx-path'), site, port)
    const { page } = await openPage(`https://${HOST}:${port}/perfwatch/`)
    await page.getByText('set hub.public_url').waitFor({ timeout: 10_000 })
    await page.context().close()
  })

  it('names the scheme of a page that the proxy reports wrongly', async () => {
    const port = await freePort()
    await startProxy(server('proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https;', false), site, port)
    const { page } = await openPage(`http://${HOST}:${port}/`)
    await expect.poll(() => notices(page).textContent()).toContain(`Open https://${HOST}:${port}`)
    await logIn(page)
    await expect.poll(() => page.locator('[role=alert]').textContent()).toContain(`expected https://${HOST}:${port}`)
    await page.context().close()
  })

  it('warns about local links where channels are configured', async () => {
    const { page } = await openPage(site.url, 390)
    await site.logIn(page.context())
    await page.goto(`${site.url}/alerts/channels`)
    await page.getByText(`Links in notifications lead to ${site.url}`).waitFor()
    await checkPage(page, 'channels-local-links-phone')
    await page.context().close()
  })
})

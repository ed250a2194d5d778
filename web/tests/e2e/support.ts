// Starts a hub and an agent of the built binary, and a headless browser.
import { AxeBuilder } from '@axe-core/playwright'
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Browser, type BrowserContext, chromium, type Locator, type Page } from 'playwright-core'
import { expect } from 'vitest'

const BINARY = process.env.E2E_BIN ?? join(import.meta.dirname, '../../../target/debug/perfwatch')
const BROWSER = ['/usr/bin/chromium-headless-shell', '/usr/bin/chromium'].find((path) => existsSync(path))
/** Directory of the screenshots. */
export const SCREENSHOTS = join(import.meta.dirname, '../../test-results')

export async function openBrowser(...options: string[]): Promise<Browser> {
  if (!BROWSER) throw new Error('no Chromium: run scripts/ensure-browser')
  mkdirSync(SCREENSHOTS, { recursive: true })
  const args = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking']
  args.push('--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', ...options)
  return chromium.launch({ executablePath: BROWSER, args })
}

export const ADMIN = { name: 'admin', password: 'a hub in a browser' }

/** Hub and agent with a data directory that is removed by `stop`. */
export class TestSite {
  /** API token of the administrator. */
  token = ''
  /** Standard output of the hub. */
  output = ''
  /** `withAdmin` creates an administrator at the start; otherwise the hub prints a setup link. */
  constructor(
    private readonly withAdmin = true,
    private readonly hubEnv: Record<string, string> = {},
  ) {}
  readonly folder = mkdtempSync(join(tmpdir(), 'perfwatch-e2e-'))
  address = '127.0.0.1:0'
  private hub?: ChildProcess
  private agent?: ChildProcess
  private readonly simulations: ChildProcess[] = []

  private start(name: string, args: string[]): ChildProcess {
    const env: NodeJS.ProcessEnv = { ...process.env, PERFWATCH_DATA: join(this.folder, name) }
    // Receivers of notifications and identity providers of tests listen on loopback addresses.
    if (name === 'hub') Object.assign(env, { PERFWATCH_HUB_ALLOWED_TARGETS: '127.0.0.0/8,::1' }, this.hubEnv)
    if (this.withAdmin && name === 'hub') env.PERFWATCH_HUB_ADMIN_PASSWORD = ADMIN.password
    return spawn(BINARY, args, { env, stdio: ['ignore', 'pipe', process.env.E2E_LOGS ? 'inherit' : 'ignore'] })
  }

  /** Starts the hub; after a restart it listens on the same port. */
  async startHub() {
    const hub = this.start('hub', ['hub', '--listen', this.address])
    this.hub = hub
    this.address = await new Promise<string>((resolve, reject) => {
      hub.stdout!.on('data', (text: Buffer) => {
        this.output += text.toString()
        const address = /is listening on http:\/\/(\S+)\n/.exec(this.output)?.[1]
        if (address && (this.withAdmin || this.output.includes('/setup#'))) resolve(address)
      })
      hub.on('exit', (code) => reject(new Error(`the hub exited with ${code}`)))
      hub.on('error', reject)
    })
    if (this.withAdmin) {
      const headers = { 'content-type': 'application/json', origin: this.url, cookie: await this.cookie(ADMIN) }
      const response = await fetch(`${this.url}/api/v1/tokens`, {
        method: 'POST',
        headers,
        body: JSON.stringify({ name: 'e2e', scope: 'admin' }),
      })
      this.token = ((await response.json()) as { token: string }).token
    }
  }

  /** API request with the token of the administrator by default. Rejects on an error answer. */
  async request<T = unknown>(method: string, path: string, body?: unknown, token: string | null = this.token): Promise<T> {
    const headers: Record<string, string> = { 'content-type': 'application/json' }
    if (token) headers.authorization = `Bearer ${token}`
    const answer = await fetch(this.url + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`)
    return (text ? JSON.parse(text) : undefined) as T
  }

  private async cookie(account: typeof ADMIN): Promise<string> {
    const answer = await fetch(`${this.url}/api/v1/auth/login`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(account),
    })
    if (!answer.ok) throw new Error(`login: ${answer.status}`)
    return answer.headers.getSetCookie()[0]!.split(';')[0]!
  }

  /** Creates a user: requires a session that confirmed its password. */
  async createUser(user: { name: string; password: string; role: string; host_tags?: string[] }) {
    const headers = { 'content-type': 'application/json', origin: this.url, cookie: await this.cookie(ADMIN) }
    const post = (path: string, body: unknown) =>
      fetch(`${this.url}/api/v1/${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
    const confirmed = await post('auth/confirm', { password: ADMIN.password })
    headers.cookie += `; ${confirmed.headers.getSetCookie()[0]!.split(';')[0]!}`
    const answer = await post('users', user)
    if (answer.status !== 201) throw new Error(`users: ${answer.status} ${await answer.text()}`)
  }

  /** Gives the browser a session of the account. */
  async logIn(context: BrowserContext, account = ADMIN) {
    const [name, value] = (await this.cookie(account)).split('=') as [string, string]
    await context.addCookies([{ name, value, url: this.url }])
  }

  startAgent(interval: string) {
    this.agent = this.start('agent', ['agent', '--hub', this.url, '--interval', interval, '--name', 'e2e-host', '--token', this.token])
  }

  /** Starts a fleet of simulated hosts; `flags` are those of `perfwatch simulate`. */
  startSimulation(...flags: string[]) {
    this.simulations.push(this.start('simulation', ['simulate', '--hub', this.url, '--token', this.token, ...flags]))
  }

  /** Exit code of the agent, which the test does not stop. */
  async agentExitCode(): Promise<number | null> {
    const agent = this.agent!
    return agent.exitCode ?? new Promise((done) => agent.once('exit', (code) => done(code)))
  }

  get url() {
    return `http://${this.address}`
  }

  async killHub() {
    await kill(this.hub, 'SIGKILL')
  }

  async stop() {
    for (const sender of [this.agent, ...this.simulations]) await kill(sender, 'SIGTERM')
    await kill(this.hub, 'SIGTERM')
    rmSync(this.folder, { recursive: true, force: true })
  }
}

async function kill(child: ChildProcess | undefined, signal: NodeJS.Signals) {
  if (!child || child.exitCode !== null) return
  const exited = new Promise((done) => child.once('exit', done))
  child.kill(signal)
  await exited
}

/** Messages of the browser about requests that reached no hub. */
const NETWORK_ERRORS =
  /ERR_(CONNECTION_(REFUSED|RESET|CLOSED)|EMPTY_RESPONSE|INTERNET_DISCONNECTED|SOCKET_NOT_CONNECTED)|closed before (receiv|the conn)/

/** Errors and warnings of the page's console, except those of a hub that is not reached. */
export function pageErrors(page: Page): string[] {
  const errors: string[] = []
  page.on('pageerror', (error) => errors.push(`error: ${error.message}`))
  page.on('console', (message) => {
    const text = message.text()
    // The page shows error answers itself.
    if (/status of 4\d\d/.test(text)) return
    if (message.type() === 'error' && !NETWORK_ERRORS.test(text)) errors.push(text)
    if (message.type() === 'warning') errors.push(text)
  })
  return errors
}

/** Takes a screenshot and checks that nothing overflows and that axe finds no violation. */
export async function checkPage(page: Page, name: string) {
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true })
  expect(await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)).toBeLessThanOrEqual(0)
  const { violations } = await new AxeBuilder({ page }).analyze()
  expect(violations.map((violation) => `${violation.id}: ${violation.nodes[0]?.html}`)).toEqual([])
}

/** Box of an element that has stopped moving, for the mouse: what loads above it moves it. */
export async function stableBox(locator: Locator) {
  const box = () => locator.boundingBox()
  let last = await box()
  await expect
    .poll(
      async () => {
        const before = JSON.stringify(last)
        last = await box()
        return last !== null && JSON.stringify(last) === before
      },
      { interval: 100 },
    )
    .toBe(true)
  return last!
}

export interface PageOptions {
  scheme?: 'dark' | 'light'
  width?: number
  account?: { name: string; password: string }
  /** URL of the hub, by default without a proxy. */
  url?: string
  /** Prepares the page before it opens the address. */
  prepare?: (page: Page) => Promise<unknown>
}

/** Page of a logged-in user in a context of its own, with the errors that `closePage` expects to be none. */
export async function openPage(browser: Browser, site: TestSite, path: string, options: PageOptions = {}) {
  const { scheme = 'dark', width = 1440, account = ADMIN, url = site.url } = options
  const context = await browser.newContext({ viewport: { width, height: width < 700 ? 844 : 900 }, colorScheme: scheme })
  await site.logIn(context, account)
  const page = await context.newPage()
  const errors = pageErrors(page)
  // A hostile text that runs as a script would open one.
  page.on('dialog', (dialog) => errors.push(`dialog: ${dialog.message()}`))
  await options.prepare?.(page)
  await page.goto(url + path)
  return { context, page, errors }
}

export async function closePage(context: BrowserContext, errors: string[]) {
  expect(errors).toEqual([])
  await context.close()
}

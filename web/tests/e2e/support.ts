// A hub and an agent of their own, and a browser to look at them.
import { AxeBuilder } from '@axe-core/playwright'
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'
import { expect } from 'vitest'

const BINARY = process.env.E2E_BIN ?? join(import.meta.dirname, '../../../target/debug/perfwatch')
const BROWSER = ['/usr/bin/chromium-headless-shell', '/usr/bin/chromium'].find((path) => existsSync(path))
export const SHOTS = join(import.meta.dirname, '../../test-results')

export async function openBrowser(): Promise<Browser> {
  if (!BROWSER) throw new Error('no Chromium: run scripts/ensure-browser')
  mkdirSync(SHOTS, { recursive: true })
  const args = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking']
  args.push('--disable-component-update', '--disable-sync', '--disable-dev-shm-usage')
  return chromium.launch({ executablePath: BROWSER, args })
}

export const ADMIN = { name: 'admin', password: 'a hub in a browser' }

export class TestSite {
  /** Of the administrator; may do all. */
  token = ''
  /** What the hub printed when it started. */
  said = ''
  /** Without: as for a newcomer, who makes the first administrator by the link. */
  constructor(private readonly withAdmin = true) {}
  readonly folder = mkdtempSync(join(tmpdir(), 'perfwatch-e2e-'))
  address = '127.0.0.1:0'
  private hub?: ChildProcess
  private agent?: ChildProcess

  private start(name: string, args: string[]): ChildProcess {
    const env: NodeJS.ProcessEnv = { ...process.env, PERFWATCH_DATA: join(this.folder, name) }
    if (this.withAdmin && name === 'hub') env.PERFWATCH_HUB_ADMIN_PASSWORD = ADMIN.password
    return spawn(BINARY, args, { env, stdio: ['ignore', 'pipe', process.env.E2E_LOGS ? 'inherit' : 'ignore'] })
  }

  /** On the same port again after a restart. */
  async startHub() {
    const hub = this.start('hub', ['hub', '--listen', this.address])
    this.hub = hub
    this.address = await new Promise<string>((found, failed) => {
      hub.stdout!.on('data', (text: Buffer) => {
        this.said += text.toString()
        const address = /is at http:\/\/(\S+)\n/.exec(this.said)?.[1]
        if (address && (this.withAdmin || this.said.includes('/setup#'))) found(address)
      })
      hub.on('exit', (code) => failed(new Error(`the hub ended with ${code}`)))
      hub.on('error', failed)
    })
    if (this.withAdmin) {
      const headers = { 'content-type': 'application/json', origin: this.url, cookie: await this.cookie(ADMIN) }
      const made = await fetch(`${this.url}/api/v1/tokens`, {
        method: 'POST',
        headers,
        body: JSON.stringify({ name: 'e2e', scope: 'admin' }),
      })
      this.token = ((await made.json()) as { token: string }).token
    }
  }

  /** Any request to the API, by the administrator unless told otherwise. */
  async ask<T = unknown>(method: string, path: string, body?: unknown, token: string | null = this.token): Promise<T> {
    const headers: Record<string, string> = { 'content-type': 'application/json' }
    if (token) headers.authorization = `Bearer ${token}`
    const answer = await fetch(this.url + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`)
    return (text ? JSON.parse(text) : undefined) as T
  }

  private async cookie(who: typeof ADMIN): Promise<string> {
    const answer = await fetch(`${this.url}/api/v1/auth/login`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(who),
    })
    if (!answer.ok) throw new Error(`login: ${answer.status}`)
    return answer.headers.getSetCookie()[0]!.split(';')[0]!
  }

  /** Logs a browser in. */
  async enter(context: BrowserContext, who = ADMIN) {
    const [name, value] = (await this.cookie(who)).split('=') as [string, string]
    await context.addCookies([{ name, value, url: this.url }])
  }

  startAgent(interval: string) {
    this.agent = this.start('agent', ['agent', '--hub', this.url, '--interval', interval, '--name', 'e2e-host', '--token', this.token])
  }

  /** Exit code of the agent, once it ends by itself. */
  async agentEnds(): Promise<number | null> {
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
    await kill(this.agent, 'SIGTERM')
    await kill(this.hub, 'SIGTERM')
    rmSync(this.folder, { recursive: true, force: true })
  }
}

async function kill(child: ChildProcess | undefined, signal: NodeJS.Signals) {
  if (!child || child.exitCode !== null) return
  const gone = new Promise((done) => child.once('exit', done))
  child.kill(signal)
  await gone
}

/** Notes what the page complains of; a hub that is away on purpose is no complaint. */
export function pageErrors(page: Page): string[] {
  const all: string[] = []
  page.on('pageerror', (error) => all.push(`error: ${error.message}`))
  page.on('console', (message) => {
    const text = message.text()
    // What a page was refused is shown by the page itself.
    if (/status of 4\d\d/.test(text)) return
    if (message.type() === 'error' && !/ERR_CONNECTION_(REFUSED|RESET)|ERR_EMPTY_RESPONSE/.test(text)) all.push(text)
    if (message.type() === 'warning') all.push(text)
  })
  return all
}

/** No element is wider than the page, no fault for who can't see it. */
export async function sound(page: Page, name: string) {
  await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true })
  expect(await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)).toBeLessThanOrEqual(0)
  const { violations } = await new AxeBuilder({ page }).analyze()
  expect(violations.map((violation) => `${violation.id}: ${violation.nodes[0]?.html}`)).toEqual([])
}

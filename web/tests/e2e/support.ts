// A hub and an agent of their own, and a browser to look at them.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Browser, chromium, type Page } from 'playwright-core'

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

export class Site {
  readonly folder = mkdtempSync(join(tmpdir(), 'perfwatch-e2e-'))
  address = '127.0.0.1:0'
  private hub?: ChildProcess
  private agent?: ChildProcess

  private start(name: string, args: string[]): ChildProcess {
    const env = { ...process.env, PERFWATCH_DATA: join(this.folder, name) }
    return spawn(BINARY, args, { env, stdio: ['ignore', 'pipe', process.env.E2E_LOGS ? 'inherit' : 'ignore'] })
  }

  /** On the same port again after a restart. */
  async startHub() {
    const hub = this.start('hub', ['hub', '--listen', this.address])
    this.hub = hub
    this.address = await new Promise<string>((found, failed) => {
      hub.stdout!.on('data', (text: Buffer) => found(text.toString().trim().split('http://')[1]!))
      hub.on('exit', (code) => failed(new Error(`the hub ended with ${code}`)))
      hub.on('error', failed)
    })
  }

  startAgent(interval: string) {
    this.agent = this.start('agent', ['agent', '--hub', this.url, '--interval', interval, '--name', 'e2e-host'])
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
export function complaints(page: Page): string[] {
  const all: string[] = []
  page.on('pageerror', (error) => all.push(`error: ${error.message}`))
  page.on('console', (message) => {
    const text = message.text()
    if (message.type() === 'error' && !/ERR_CONNECTION_(REFUSED|RESET)|ERR_EMPTY_RESPONSE/.test(text)) all.push(text)
    if (message.type() === 'warning') all.push(text)
  })
  return all
}

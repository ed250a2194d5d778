// Incident capsules: exported from pages, opened on another hub and in the static viewer without a hub, compared value by
// value with the hub that has the history; masks, hostile files, and sharing with a reader without an account.
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { deflateSync } from 'node:zlib'
import type { Browser, Download, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { Capsule } from '../../src/capsule/capsule'
import { checkPage, closePage, openBrowser, openPage, pageErrors, TestSite } from './support'

const VIEWER = { name: 'vera', password: 'it rains all day' }
const BOOT = '6ccd780c-baba-4026-9564-5b8c656024db'
const INTERVAL_MS = 2_000
const ROWS = 450
const BUSY_ROWS = 120
const SCREENS = [
  ['dark', 1440],
  ['light', 1440],
  ['dark', 390],
  ['light', 390],
] as const

let browser: Browser
let site: TestSite
let other: TestSite
let incident = ''
const hosts: Record<string, string> = {}
const folder = mkdtempSync(join(tmpdir(), 'perfwatch-capsules-'))
const now = Math.floor(Date.now() / 1000) * 1000
const VIEWER_FILE = join(import.meta.dirname, '../../dist/capsule-viewer.html')

function rowAt(host: string, index: number) {
  const busy = host === 'db-03' && index >= ROWS - BUSY_ROWS
  const wave = Math.sin(index / 9) * 4
  const cpu = busy ? 94 + Math.sin(index) : 35 + wave
  const process = (pid: number, name: string, share: number, command: string) => ({
    pid,
    parent_pid: 1,
    name,
    user: 'alice',
    command,
    cpu_percent: Math.round(share * 10) / 10,
    memory_bytes: Math.round(2e8 + share * 1e6),
    threads: 4,
    read_bytes: Math.round(share * 1e5),
    write_bytes: Math.round(share * 2e5),
    started_ms: now - 3_600_000,
  })
  return {
    host,
    boot: BOOT,
    seq: index,
    // Half a minute is missing before the host is busy.
    timestamp: now - (ROWS - 1 - index) * INTERVAL_MS - (index < ROWS - BUSY_ROWS ? 30_000 : 0),
    interval_ms: INTERVAL_MS,
    cpu: { usage: cpu, user: cpu * 0.7, system: cpu * 0.2, iowait: cpu * 0.1, cores: 8 },
    load: { '1m': cpu / 10, '5m': cpu / 12, '15m': cpu / 14 },
    memory: { used: (busy ? 54 : 42) * 2 ** 30, cached: 9 * 2 ** 30, total: 64 * 2 ** 30, used_percent: busy ? 84.2 : 66 },
    pressure: { cpu: { some: cpu / 3 }, memory: { some: 0.4 }, io: { some: busy ? 48 : 6, full: 3 } },
    network: { total: { rx_bytes: 7.8e6 + wave * 1e5, tx_bytes: 3.1e6 } },
    disk: { total: { read_bytes: 4e7, write_bytes: busy ? 6.4e8 : 9e7 }, device: { nvme0n1: { utilization: busy ? 97 : 22 } } },
    filesystem: { mount: { '/home/alice': { used_percent: 41, available: 6e10 } } },
    processes: {
      total: 312,
      threads: 840,
      top: [process(1187, 'postgres', busy ? 412 : 20 + wave, `postgres: ${host} job ${index}`), process(7, 'sshd', 0.5, 'sshd: alice')],
    },
    system: { uptime: 1 },
  }
}

interface Incident {
  id: string
  title: string
}

beforeAll(async () => {
  browser = await openBrowser()
  ;[site, other] = [new TestSite(), new TestSite()]
  await Promise.all([site.startHub(), other.startHub()])
  const condition = { kind: 'threshold', metric: 'cpu.usage', threshold: 90 }
  await site.request('POST', '/api/v1/rules', {
    name: 'CPU saturation',
    severity: 'critical',
    enabled: true,
    hosts: {},
    for: '10s',
    condition,
  })
  for (const host of ['db-03', 'api-05']) {
    const rows = Array.from({ length: ROWS }, (_, index) => rowAt(host, index))
    for (let at = 0; at < ROWS; at += 150)
      expect(await site.request('POST', '/ingest/metrics', rows.slice(at, at + 150))).toMatchObject({ rejected: [] })
    hosts[host] = (await site.request<{ id: string }>('GET', `/api/v1/hosts/${host}`)).id
    await site.request('PUT', `/api/v1/hosts/${host}/tags`, { tags: [`host=${host}`] })
  }
  const list = async () => (await site.request<{ incidents: Incident[] }>('GET', '/api/v1/incidents')).incidents
  const find = async () => (await list()).find(({ title }) => title.includes('CPU saturation'))?.id
  await vi.waitFor(async () => expect(await find()).toBeTruthy(), { timeout: 30_000, interval: 500 })
  incident = (await find())!
  await site.request('POST', `/api/v1/incidents/${incident}/comments`, { text: 'alice restarted the job on db-03' })
  await site.createUser({ ...VIEWER, role: 'viewer', host_tags: ['host=api-05'] })
}, 180_000)
afterAll(async () => {
  await browser?.close()
  await site?.stop()
  await other?.stop()
  rmSync(folder, { recursive: true, force: true })
})

async function savedFile(download: Download): Promise<string> {
  const path = join(folder, `${Math.random()}-${download.suggestedFilename()}`)
  await download.saveAs(path)
  return path
}

/** Exports a capsule on a page and returns the path of the file. */
async function exportOn(page: Page, choose: (page: Page) => Promise<unknown> = async () => {}): Promise<string> {
  await page.getByRole('button', { name: 'Export capsule…' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.waitFor()
  await choose(page)
  const [download] = await Promise.all([page.waitForEvent('download'), dialog.getByRole('button', { name: 'Export' }).click()])
  await dialog.waitFor({ state: 'hidden' })
  return savedFile(download)
}

const openFile = (path: string) => Capsule.open(new Uint8Array(readFileSync(path)))
const drop = (page: Page, path: string) => page.locator('input[type=file]').setInputFiles(path)

interface Series {
  t: number[]
  series: { metric: string; instance: string; v: (number | null)[] }[]
}

/** Compares all series and the processes of some rows with the answers of the hub that has the history. */
async function expectEqualToHub(capsule: Capsule, index: number) {
  const { from_ms, to_ms, hosts: list } = capsule.document
  const { id, series } = list[index]!
  const answer = await site.request<Series>('GET', `/api/v1/hosts/${id}/series?metric=*&points=10000&from=${from_ms}&to=${to_ms}`)
  const columns = await capsule.columns(index)
  expect(columns.times.map((time) => Math.round(time * 1000))).toEqual(answer.t)
  expect(series.length).toBe(answer.series.length)
  for (const { metric, instance, v } of answer.series) expect(columns.get(metric, instance), `${metric} ${instance}`).toEqual(v)
  const processes = await capsule.processes(index)
  for (let row = 0; row < answer.t.length; row += 37) {
    const path = `/api/v1/hosts/${id}/snapshot?at=${answer.t[row]}`
    const { snapshot } = await site.request<{ snapshot: { processes: { top: Record<string, unknown>[] } } }>('GET', path)
    expect(processes.rowsAt(answer.t[row]! / 1000)).toEqual(
      snapshot.processes.top.map((process) => expect.objectContaining({ ...process, open_files: process.open_files ?? undefined })),
    )
  }
}

/** All values of charts, processes and timeline that a viewer shows. */
async function shownContent(page: Page) {
  await page.locator('.section [data-points]').first().waitFor()
  const charts = () => page.locator('[role=img][aria-label]').evaluateAll((all) => all.map((chart) => chart.getAttribute('aria-label')))
  await expect.poll(async () => (await charts()).filter((label) => /\d/.test(label ?? '')).length).toBeGreaterThan(5)
  return {
    charts: await charts(),
    processes: await page.getByRole('region', { name: 'Top processes' }).locator('tbody').innerText(),
    timeline: await page.getByRole('region', { name: 'Timeline' }).locator('ol').innerText(),
    movers: await page.getByRole('region', { name: 'Largest consumers and movers' }).innerText(),
    heading: await page.getByRole('heading', { level: 1 }).innerText(),
  }
}

async function openViewer() {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: 'dark' })
  const page = await context.newPage()
  const errors = pageErrors(page)
  const requests: string[] = []
  page.on('request', (request) => requests.push(request.url()))
  page.on('dialog', (dialog) => errors.push(`dialog: ${dialog.message()}`))
  await page.goto(pathToFileURL(VIEWER_FILE).href)
  return { context, page, errors, requests }
}

describe('capsule of a planted incident', () => {
  it('is exported from the incident and equals the hub on another hub and in the viewer without a hub', async () => {
    const { context, page, errors } = await openPage(browser, site, `/alerts/incidents/${incident}`)
    const path = await exportOn(page, async () => {
      await checkPage(page, 'capsule-export')
      await page.getByRole('checkbox', { name: 'api-05' }).check()
      await page.getByLabel('Note for the reader').fill('Please look at the checkpoints.')
    })
    await closePage(context, errors)
    const capsule = await openFile(path)
    expect(capsule.document.hosts.map(({ name }) => name).sort()).toEqual(['api-05', 'db-03'])
    for (const index of [0, 1]) await expectEqualToHub(capsule, index)
    const detail = await site.request<{ incident: { alerts: unknown }; timeline: unknown }>('GET', `/api/v1/incidents/${incident}`)
    expect(capsule.document.incidents[0]!.timeline).toEqual(detail.timeline)
    expect(capsule.document.incidents[0]!.incident.alerts).toEqual(detail.incident.alerts)

    const onHub = await openPage(browser, other, '/capsules')
    await drop(onHub.page, path)
    await onHub.page.getByText('Recorded data, not live.').waitFor()
    const shown = await shownContent(onHub.page)
    await closePage(onHub.context, onHub.errors)
    const viewer = await openViewer()
    await drop(viewer.page, path)
    expect(await shownContent(viewer.page)).toEqual(shown)
    expect(shown.timeline).toContain('alice restarted the job on db-03')
    expect(shown.processes).toContain('postgres')
    expect(shown.heading).toContain('CPU saturation')
    expect(viewer.requests.filter((url) => !/^(file|data|blob):/.test(url))).toEqual([])
    await closePage(viewer.context, viewer.errors)
  })

  it.each(SCREENS)('is shown in %s at %i px', async (scheme, width) => {
    const path = join(folder, 'shown.pwcap')
    writeFileSync(path, await exported({ incident, hosts: ['db-03', 'api-05'], from: String(now - 900_000), note: 'A note' }))
    const { context, page, errors } = await openPage(browser, other, '/capsules', { scheme, width })
    await page.getByText('Drop a .pwcap file to open it').waitFor()
    await checkPage(page, `capsules-${scheme}-${width}`)
    await drop(page, path)
    await shownContent(page)
    await checkPage(page, `capsule-${scheme}-${width}`)
    // Steps, the other host, all columns of processes, and back to the list.
    const time = page.locator('.recorder .instant b')
    const before = await time.innerText()
    await page.keyboard.press('ArrowRight')
    await expect.poll(() => time.innerText()).not.toBe(before)
    await page.getByRole('button', { name: 'api-05', exact: true }).click()
    await page.getByRole('heading', { name: 'Processes on api-05' }).waitFor()
    await page.getByRole('button', { name: 'All columns' }).click()
    await page
      .getByText(/postgres: api-05 job \d+/)
      .first()
      .waitFor()
    await page.getByRole('button', { name: 'Close' }).click()
    await page.getByText('Drop a .pwcap file to open it').waitFor()
    await closePage(context, errors)
  })

  it('is exported from the page of a host with the key E', async () => {
    const { context, page, errors } = await openPage(browser, site, `/hosts/${hosts['api-05']}`, { account: VIEWER })
    await page.getByRole('heading', { name: 'api-05', exact: true }).waitFor()
    await page.keyboard.press('e')
    await page.getByRole('dialog').waitFor()
    expect(await page.getByRole('dialog').getByRole('checkbox', { name: 'db-03' }).count()).toBe(0)
    await page.keyboard.press('Escape')
    const capsule = await openFile(await exportOn(page))
    expect(capsule.document.hosts.map(({ name }) => name)).toEqual(['api-05'])
    expect(JSON.stringify(capsule.document)).not.toContain('db-03')
    await expectEqualToHub(capsule, 0)
    await page.goto(`${site.url}/`)
    await page.getByRole('heading', { level: 1 }).waitFor()
    await page.keyboard.press('g')
    await page.keyboard.press('c')
    await page.getByText('Drop a .pwcap file to open it').waitFor()
    await closePage(context, errors)
  })
})

/** File that the API returns. */
async function exported(body: unknown): Promise<Buffer> {
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${site.token}` }
  const answer = await fetch(`${site.url}/api/v1/capsules`, { method: 'POST', headers, body: JSON.stringify(body) })
  if (!answer.ok) throw new Error(`capsules: ${answer.status} ${await answer.text()}`)
  return Buffer.from(await answer.arrayBuffer())
}

describe('sharing an incident with somebody without an account', () => {
  it('takes a masked capsule and the viewer', async () => {
    const { context, page, errors } = await openPage(browser, site, `/alerts/incidents/${incident}`)
    const path = await exportOn(page, async () => {
      await page.getByRole('checkbox', { name: 'user names' }).check()
      await page.getByRole('checkbox', { name: 'host names' }).check()
    })
    await page.getByRole('link', { name: 'Capsules' }).first().click()
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: 'Download viewer' }).click()])
    const viewerFile = await savedFile(download)
    await closePage(context, errors)
    expect(readFileSync(viewerFile)).toEqual(readFileSync(VIEWER_FILE))

    // The reader has the two files and no hub.
    const viewer = await openViewer()
    await viewer.page.goto(pathToFileURL(viewerFile).href)
    await drop(viewer.page, path)
    const shown = await shownContent(viewer.page)
    const text = await viewer.page.locator('body').innerText()
    for (const name of ['db-03', 'alice', 'admin']) expect(text, name).not.toContain(name)
    expect(text).toMatch(/Replaced: command lines, user names, host names/)
    expect(shown.heading).toContain('host-1')
    expect(shown.processes).toContain('postgres')
    expect(shown.timeline).toContain('user-')
    await checkPage(viewer.page, 'capsule-viewer')
    await closePage(viewer.context, viewer.errors)
  })
})

/** Capsule of this document with empty sections and valid checksums. */
function pack(document: unknown, contents: Uint8Array[] = []): Buffer {
  const sections = [Buffer.from(JSON.stringify(document)), ...contents].map((content) => ({ stored: deflateSync(content), content }))
  const head = Buffer.alloc(12 + sections.length * 40)
  head.write('PWCAP\r\n\x1a', 'latin1')
  head.writeUInt16LE(1, 8)
  head.writeUInt16LE(sections.length, 10)
  sections.forEach(({ stored, content }, index) => {
    head.writeUInt32LE(stored.length, 12 + index * 40)
    head.writeUInt32LE(content.length, 16 + index * 40)
    createHash('sha256')
      .update(stored)
      .digest()
      .copy(head, 20 + index * 40)
  })
  return Buffer.concat([head, createHash('sha256').update(head).digest(), ...sections.map(({ stored }) => stored)])
}

describe('hostile capsules', () => {
  it('give an error and nothing else', async () => {
    const valid = await exported({ hosts: ['db-03'] })
    const { document } = await Capsule.open(new Uint8Array(valid))
    const damaged = Buffer.from(valid)
    damaged[valid.length - 5]! ^= 1
    const bomb = pack(document, [Buffer.alloc(8), Buffer.alloc(0)])
    bomb.writeUInt32LE(2 ** 31, 16)
    const cases: [Buffer, RegExp][] = [
      [Buffer.from('<script>alert(1)</script>'), /this is no .pwcap file/],
      [valid.subarray(0, valid.length - 1), /incomplete/],
      [damaged, /damaged: checksum mismatch/],
      [bomb, /damaged: checksum mismatch/],
      [pack({ ...document, title: { toString: 1 } }, [Buffer.alloc(0), Buffer.alloc(0)]), /invalid: document\.title/],
      [pack({ ...document, hosts: Array(60).fill(document.hosts[0]) }), /invalid: document\.hosts/],
      [Buffer.alloc(33 * 2 ** 20), /larger than a capsule can be/],
    ]
    const { context, page, errors } = await openPage(browser, other, '/capsules')
    for (const [index, [file, message]] of cases.entries()) {
      const path = join(folder, `hostile-${index}.pwcap`)
      writeFileSync(path, file)
      await drop(page, path)
      await expect.poll(() => page.getByRole('alert').innerText()).toMatch(message)
      expect(await page.getByText('Recorded data').count()).toBe(0)
    }
    // The next valid file opens.
    writeFileSync(join(folder, 'valid.pwcap'), valid)
    await drop(page, join(folder, 'valid.pwcap'))
    await page.getByText('Recorded data, not live.').waitFor()
    await closePage(context, errors)
  })

  it('show scripts in names as text, and sections that are invalid as errors', async () => {
    const { document } = await Capsule.open(new Uint8Array(await exported({ incident, hosts: ['db-03'] })))
    const script = '<img src=x onerror=alert(1)><script>alert(2)</script>'
    const hostile = structuredClone(document)
    Object.assign(hostile, { title: script, note: script, created_by: script })
    for (const host of hostile.hosts) {
      Object.assign(host, { name: script, tags: [script], rows: 0, process_rows: 3, series: [] })
      host.events.forEach((event) => Object.assign(event, { text: script, detail: script }))
      host.alerts.forEach((alert) => Object.assign(alert, { rule_name: script, summary: script, host_name: script }))
    }
    hostile.incidents[0]!.timeline.forEach((entry) => Object.assign(entry, { actor: script, text: script }))
    const path = join(folder, 'script.pwcap')
    writeFileSync(path, pack(hostile, [Buffer.alloc(0), Buffer.from([1, 2, 3])]))
    const viewer = await openViewer()
    await drop(viewer.page, path)
    await viewer.page.getByRole('heading', { level: 1, name: script }).waitFor()
    await viewer.page.getByText('the file is i').waitFor()
    expect(await viewer.page.locator('img').count()).toBe(0)
    await closePage(viewer.context, viewer.errors)
    const { context, page, errors } = await openPage(browser, other, '/capsules')
    await drop(page, path)
    await page.getByRole('heading', { level: 1, name: script }).waitFor()
    expect(await page.locator('main img').count()).toBe(0)
    await closePage(context, errors)
  })
})

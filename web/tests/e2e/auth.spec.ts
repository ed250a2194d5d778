// Setup, login, roles, two-factor authentication and agent enrollment in a real browser.
import { createHmac } from 'node:crypto'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkPage, openBrowser, pageErrors, TestSite } from './support'

let browser: Browser
let site: TestSite

beforeAll(async () => {
  browser = await openBrowser()
  site = new TestSite(false)
  await site.startHub()
})
afterAll(async () => {
  await browser?.close()
  await site?.stop()
})

async function tab(scheme: 'dark' | 'light' = 'dark', width = 1280): Promise<{ page: Page; errors: string[] }> {
  const context = await browser.newContext({ viewport: { width, height: 860 }, colorScheme: scheme })
  const page = await context.newPage()
  return { page, errors: pageErrors(page).map(String) }
}

/** Current code of an authenticator app (RFC 6238). */
function codeOf(base32: string): string {
  const bits = [...base32].map((c) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(c).toString(2).padStart(5, '0')).join('')
  const key = Buffer.from(bits.match(/.{8}/g)!.map((byte) => parseInt(byte, 2)))
  const step = Buffer.alloc(8)
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)))
  const hmac = createHmac('sha1', key).update(step).digest()
  const at = hmac[19]! & 15
  return String((hmac.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, '0')
}

const dialog = (page: Page) => page.getByRole('dialog')
const PASSWORD = 'what a fine morning'

/** Enters the password of the administrator again before a lasting change. */
async function confirm(page: Page) {
  const confirmation = page.getByRole('dialog', { name: 'Confirm with your password' })
  await confirmation.getByLabel('Password').fill(PASSWORD)
  await confirmation.getByRole('button', { name: 'Confirm' }).click()
  await confirmation.waitFor({ state: 'detached' })
}

describe('auth', () => {
  it('setup link creates the administrator', async () => {
    const { page } = await tab()
    await page.goto(site.url)
    await expect.poll(() => page.url()).toMatch(/\/setup$/)
    await checkPage(page, 'setup-without-link')
    await page.goto(/http:\S+\/setup#\S+/.exec(site.output)![0])
    await page.reload()
    await page.getByLabel('Name').fill('Alice')
    await page.getByLabel('Password', { exact: true }).fill(PASSWORD)
    await page.getByLabel('Repeat password').fill('something else')
    await page.getByRole('button', { name: 'Create account' }).click()
    await expect.poll(() => page.getByRole('alert').textContent()).toContain('do not match')
    await checkPage(page, 'setup')
    await page.getByLabel('Repeat password').fill(PASSWORD)
    await page.getByRole('button', { name: 'Create account' }).click()
    await page.getByRole('heading', { name: 'No hosts yet' }).waitFor()
    await checkPage(page, 'hosts-empty')
    await page.getByLabel('Account of alice').click()
    await page.getByRole('menuitem', { name: 'Log out' }).click()
    await page.getByLabel('Password').waitFor()
    await page.context().close()
  })

  it('login returns to the requested page and rejects unknown users', async () => {
    const { page } = await tab('light', 390)
    await page.goto(`${site.url}/settings/audit`)
    await page.getByLabel('Name').fill('alice')
    await page.getByLabel('Password').fill('not this one')
    await page.getByRole('button', { name: 'Log in' }).click()
    await expect.poll(() => page.getByRole('alert').textContent()).toContain('Invalid name, password or code')
    await checkPage(page, 'login-phone')
    await page.getByLabel('Password').fill(PASSWORD)
    await page.getByRole('button', { name: 'Log in' }).click()
    await page.getByRole('heading', { name: 'Audit log' }).waitFor()
    await expect.poll(() => page.locator('tbody').textContent()).toContain('login.failed')
    await checkPage(page, 'audit-phone')
    await page.context().close()
  })

  it('roles hide forbidden actions', async () => {
    const { page: admin } = await tab()
    const context = admin.context()
    await site.logIn(context, { name: 'alice', password: PASSWORD })
    await admin.goto(`${site.url}/settings/users`)
    await admin.getByRole('button', { name: 'New user' }).click()
    await dialog(admin).getByLabel('Name').fill('bob')
    await dialog(admin).getByLabel('Initial password').fill('short')
    await dialog(admin).getByRole('button', { name: 'Create user' }).click()
    await confirm(admin)
    await expect.poll(() => dialog(admin).getByRole('alert').textContent()).toContain('10 characters')
    await dialog(admin).getByLabel('Initial password').fill('it rains all day')
    await dialog(admin).getByRole('button', { name: 'Create user' }).click()
    await expect.poll(() => admin.locator('tbody').textContent()).toContain('bob')
    await checkPage(admin, 'users')

    const { page: viewer, errors } = await tab()
    await site.logIn(viewer.context(), { name: 'bob', password: 'it rains all day' })
    const rejected: string[] = []
    viewer.on('response', (answer) => answer.status() >= 400 && rejected.push(`${answer.status()} ${answer.url()}`))
    await viewer.goto(site.url)
    await viewer.getByRole('heading', { name: 'No hosts yet' }).waitFor()
    expect(await viewer.getByText('Add host').count()).toBe(0)
    await viewer.goto(`${site.url}/settings`)
    await viewer.getByRole('heading', { name: 'Active sessions' }).waitFor()
    const links = await viewer.locator('nav[aria-label=Settings] a').allTextContents()
    expect(links.map((link) => link.trim())).toEqual(['My account', 'My API tokens', 'Appearance', 'Documentation ↗', 'API ↗'])
    await checkPage(viewer, 'account')
    await viewer.getByRole('link', { name: 'My API tokens' }).click()
    await viewer.getByRole('button', { name: 'New token' }).click()
    await dialog(viewer).getByLabel('Scope').click()
    expect(await viewer.getByRole('option').allTextContents()).toEqual(['viewer: read access'])
    await viewer.keyboard.press('Escape')
    await dialog(viewer).getByLabel('Name').fill('a script')
    await dialog(viewer).getByRole('button', { name: 'Create token' }).click()
    await expect.poll(() => viewer.getByLabel('Token', { exact: true }).textContent()).toMatch(/^pwt_/)
    await checkPage(viewer, 'tokens')
    expect(rejected).toEqual([])
    expect(errors).toEqual([])

    // Disabling an account ends its sessions: the open page goes to the login.
    await viewer.goto(site.url)
    await admin.getByRole('button', { name: 'Edit bob' }).click()
    await dialog(admin).getByLabel('Enabled').uncheck()
    await dialog(admin).getByRole('button', { name: 'Save' }).click()
    await expect.poll(() => viewer.url()).toContain('/login')
    await viewer.context().close()
    await context.close()
  })

  it('two-factor authentication can be enabled and disabled', async () => {
    const { page } = await tab()
    await site.logIn(page.context(), { name: 'alice', password: PASSWORD })
    await page.goto(`${site.url}/settings/account`)
    await page.getByRole('button', { name: 'Enable…' }).click()
    await page.getByRole('dialog', { name: 'Confirm with your password' }).waitFor()
    await checkPage(page, 'confirmation')
    await confirm(page)
    const secret = await page.locator('.setup code').textContent()
    await checkPage(page, 'totp-setup')
    await page.getByLabel('Code', { exact: true }).fill(codeOf(secret!))
    await page.getByRole('button', { name: 'Enable', exact: true }).click()
    const codes = page.locator('.recovery-codes li')
    await expect.poll(() => codes.count()).toBe(8)
    const recoveryCode = (await codes.first().textContent())!
    await checkPage(page, 'totp-enabled')

    const { page: other } = await tab()
    await other.goto(`${site.url}/login`)
    await other.getByLabel('Name').fill('alice')
    await other.getByLabel('Password').fill(PASSWORD)
    await other.getByRole('button', { name: 'Log in' }).click()
    await other.getByLabel('Two-factor code').fill(recoveryCode)
    await other.getByRole('button', { name: 'Log in' }).click()
    await other.getByRole('heading', { name: 'No hosts yet' }).waitFor()
    await other.context().close()

    await page.getByRole('button', { name: 'Disable…' }).click()
    await dialog(page).getByLabel('Password').fill(PASSWORD)
    await dialog(page).getByRole('button', { name: 'Disable' }).click()
    await page.getByRole('button', { name: 'Enable…' }).waitFor()
    await page.context().close()
  })

  it('agent enrolls with the install command and is revoked', async () => {
    const { page, errors } = await tab()
    await site.logIn(page.context(), { name: 'alice', password: PASSWORD })
    await page.goto(site.url)
    await page.getByRole('link', { name: 'Create install command' }).click()
    await dialog(page).getByLabel('Name').fill('rack 7')
    await dialog(page).getByLabel(/^Tags/).fill('environment=test')
    await dialog(page).getByRole('button', { name: 'Create token' }).click()
    const command = (await page.getByLabel('Install command').textContent())!
    expect(command).toMatch(
      /^\(curl -fsSL (http:\/\/\S+\/install\.sh) \|\| wget -O- \1 \|\| echo exit 1\) \| sudo sh -s -- pwe_[0-9a-f]{64}$/,
    )
    site.token = command.split(' ').at(-1)!
    site.startAgent('500ms')
    await page.getByText('e2e-host is connected').waitFor({ timeout: 20_000 })
    await expect.poll(() => page.locator('tbody').last().textContent()).toContain('Online')
    await checkPage(page, 'agents')
    await page.setViewportSize({ width: 390, height: 860 })
    await checkPage(page, 'agents-phone')
    await page.getByRole('navigation').getByRole('link', { name: 'Hosts' }).click()
    await page.getByText('e2e-host').first().waitFor()
    // Grouped by environment.
    await expect.poll(() => page.locator('tbody').textContent()).toMatch(/^test1 host/)
    await checkPage(page, 'hosts')
    await page.getByRole('link', { name: 'e2e-host', exact: true }).first().click()
    await expect.poll(() => page.locator('.page-head .tags').textContent()).toMatch(/^environment\s*test$/)
    await page.goto(`${site.url}/settings/agents`)
    await page.getByRole('button', { name: 'Revoke…' }).click()
    await dialog(page).getByRole('button', { name: 'Revoke' }).click()
    await expect.poll(() => page.locator('tbody').last().textContent()).toContain('Revoked')
    expect(await site.agentExitCode()).toBe(78)
    expect(errors).toEqual([])
    await page.context().close()
  })
})

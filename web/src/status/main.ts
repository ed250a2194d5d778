// Public status page (`/s/{token}`): loads the answer of its link, shows it, and loads it again every few seconds.
import './status.css'
import { publicStatus as texts } from '../locales/en/lazy/publicStatus'
import { h, icon } from './dom'
import { duration, fill, type Status, time } from './model'
import { footer, sections } from './view'

const REFRESH_MS = 15_000
/** Until the availability of all days is computed. */
const COMPUTING_REFRESH_MS = 3_000

const root = document.getElementById('status')!
const token = location.pathname.split('/').pop() ?? ''
const address = new URL(`api/v1/public/status/${encodeURIComponent(token)}`, document.baseURI)

let status: Status | null = null
/** Answer on the page without its time, to leave an unchanged page alone. */
let shown = ''
let loadedAt = 0
let failed = false
let timer = 0

const age = h('span', { class: 'dim num age', role: 'timer' })
const heading = h('h1', {}, texts.status)
const description = h('p', { class: 'description' })
const main = h('main')
const foot = h('div')

function showAge() {
  if (!status) return
  const seconds = Math.max(0, (Date.now() - loadedAt) / 1_000)
  age.textContent = failed ? fill(texts.notUpdated, { time: time(loadedAt, Date.now()) }) : fill(texts.updated, { age: duration(seconds) })
  age.classList.toggle('stale', failed)
}

function render(next: Status) {
  status = next
  const text = JSON.stringify({ ...next, now_ms: Math.floor(next.now_ms / 60_000) })
  if (text === shown) return
  shown = text
  // Open lists and the focus stay where they are.
  const open = new Set([...main.querySelectorAll<HTMLElement>('details[open]')].map((element) => element.dataset.key))
  const focused = document.activeElement?.closest<HTMLElement>('details')?.dataset.key
  document.title = `${texts.page[next.state]} · ${next.title}`
  heading.textContent = next.title
  description.textContent = next.description
  main.replaceChildren(...sections(next))
  for (const element of main.querySelectorAll<HTMLDetailsElement>('details')) {
    element.open = open.has(element.dataset.key)
    if (element.dataset.key === focused) element.querySelector('summary')?.focus()
  }
  foot.replaceChildren(footer(next))
}

function showUnavailable() {
  status = null
  shown = ''
  document.title = texts.status
  heading.textContent = texts.status
  description.textContent = ''
  age.textContent = ''
  main.replaceChildren(
    h(
      'div',
      { class: 'hero unknown' },
      icon('unknown', 28),
      h('div', {}, h('b', {}, texts.unavailable), h('p', { class: 'dim' }, texts.unavailableNote)),
    ),
  )
  foot.replaceChildren()
}

async function load() {
  clearTimeout(timer)
  let wait = REFRESH_MS
  try {
    const response = await fetch(address, { credentials: 'omit', referrerPolicy: 'no-referrer' })
    if (response.status === 404) {
      showUnavailable()
    } else if (response.ok) {
      render((await response.json()) as Status)
      loadedAt = Date.now()
      failed = false
      const days = status!.groups.flatMap((group) => group.hosts).flatMap((host) => host.days)
      if (days.some((day) => day === null)) wait = COMPUTING_REFRESH_MS
    } else {
      failed = true
      wait = Math.max(wait, 1_000 * Number(response.headers.get('retry-after') ?? 0))
    }
  } catch {
    failed = true
  }
  if (!status && failed) main.replaceChildren(h('p', { class: 'dim' }, fill(texts.notUpdated, { time: time(Date.now(), Date.now()) })))
  showAge()
  timer = window.setTimeout(() => void load(), wait)
}

root.append(h('header', { class: 'top' }, heading, age, description), main, foot)
main.append(h('p', { class: 'dim' }, texts.loading))
setInterval(showAge, 1_000)
// A hidden page asks for nothing; it is loaded again when it is shown.
document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : void load()))
void load()

// Sections of the public status page.
import { publicStatus as texts } from '../locales/en/lazy/publicStatus'
import { h, icon, spark } from './dom'
import { byteRate, date, dateOf, type Day, dayState, duration, fill, linePath, percent, type Status, type StatusHost, time } from './model'

/** Days of a page; narrow screens show the newer half (status.css). */
const DAYS = 90

/** Color and icon of a state. */
const shapeOf = (state: Status['state']) => (state === 'partly_down' ? 'down' : state)
const countStates = (hosts: StatusHost[], state: string) => hosts.filter((host) => host.state === state).length

function hero(status: Status): HTMLElement {
  const hosts = status.groups.flatMap((group) => group.hosts)
  const note = fill(texts.note[status.state], { count: countStates(hosts, shapeOf(status.state)), total: hosts.length })
  return h(
    'div',
    { class: `hero ${shapeOf(status.state)}`, role: 'status' },
    icon(shapeOf(status.state), 28),
    h('div', {}, h('b', {}, texts.page[status.state]), h('p', { class: 'dim' }, note)),
  )
}

/** Times of a day as text: `22 h up, 2 h down`. */
function dayText(day: Day): string {
  if (!day) return texts.computing
  if (dayState(day) === 'none') return texts.legend.none
  const names = [texts.oneDay.up, texts.oneDay.down, texts.oneDay.maintenance, texts.oneDay.unknown]
  return day.flatMap((seconds, index) => (seconds > 0 ? [`${duration(seconds)} ${names[index]}`] : [])).join(', ')
}

function bars(host: StatusHost, nowMs: number): HTMLElement {
  const days = host.days as Day[]
  const states = days.map(dayState)
  const count = (...wanted: string[]) => states.filter((state) => wanted.includes(state)).length
  const label = fill(texts.bars, {
    name: host.name,
    percent: host.availability === null ? texts.noPercent : percent(host.availability),
    down: count('down', 'part'),
    maintenance: count('maintenance'),
    unknown: count('unknown', 'computing'),
  })
  const bar = (state: string, index: number) =>
    h('i', { class: state, title: `${date(dateOf(index, days.length, nowMs))}: ${dayText(days[index]!)}` })
  return h('div', { class: 'days', role: 'img', 'aria-label': label }, states.map(bar))
}

/** Days that were not up all the time, as a list. */
function details(host: StatusHost, key: string, nowMs: number): HTMLElement {
  const days = host.days as Day[]
  const rows = days.flatMap((day, index) => {
    if (['up', 'none'].includes(dayState(day))) return []
    return [h('li', {}, h('span', { class: 'num' }, date(dateOf(index, days.length, nowMs))), ` ${dayText(day)}`)]
  })
  const first = days.findIndex((day) => dayState(day) !== 'none')
  const since = first !== 0 && fill(first > 0 ? texts.firstData : texts.noData, { date: date(dateOf(first, days.length, nowMs)) })
  return h(
    'details',
    { 'data-key': key },
    h('summary', {}, texts.details),
    since && h('p', {}, since),
    rows.length ? h('ul', { tabindex: 0, 'aria-label': texts.details }, rows.reverse()) : h('p', { class: 'dim' }, texts.noDetails),
  )
}

function hostRow(host: StatusHost, key: string, nowMs: number): HTMLElement {
  const since = host.since_ms ? ` ${fill(texts.since, { time: time(host.since_ms, nowMs) })}` : ''
  return h(
    'li',
    { class: 'host' },
    h(
      'span',
      { class: 'name' },
      h('b', {}, host.name),
      h('span', { class: `state ${shapeOf(host.state)}` }, icon(shapeOf(host.state), 15), texts.state[host.state], since),
    ),
    bars(host, nowMs),
    h('span', { class: 'num percent' }, host.availability === null ? '–' : percent(host.availability)),
    details(host, key, nowMs),
  )
}

function groups(status: Status): HTMLElement[] {
  return status.groups
    .filter((group) => group.hosts.length > 0)
    .map((group, index) =>
      h(
        'section',
        { class: 'panel' },
        h(
          'header',
          {},
          h('h2', {}, group.name),
          h('span', { class: 'dim wide' }, fill(texts.days, { count: DAYS })),
          h('span', { class: 'dim narrow' }, fill(texts.days, { count: DAYS / 2 })),
        ),
        h(
          'ul',
          {},
          group.hosts.map((host, at) => hostRow(host, `${index}.${at}`, status.now_ms)),
        ),
      ),
    )
}

function legend(): HTMLElement {
  const item = (state: string, text: string) => h('li', {}, h('span', { class: 'days' }, h('i', { class: state })), text)
  return h(
    'div',
    { class: 'legend dim' },
    h(
      'ul',
      {},
      Object.entries(texts.legend).map(([state, text]) => item(state, text)),
    ),
    h('p', {}, texts.legendNote),
  )
}

function incidents(status: Status): HTMLElement | null {
  if (!status.incidents) return null
  const row = (incident: NonNullable<Status['incidents']>[number]) => {
    const severity = incident.severity === 'critical' ? 'critical' : 'warning'
    return h(
      'li',
      {},
      h(
        'span',
        { class: `state ${severity === 'critical' ? 'down' : 'degraded'}` },
        icon(severity === 'critical' ? 'down' : 'degraded', 16),
      ),
      h('b', {}, fill(texts.incident[severity], { names: incident.names.join(', ') })),
      h('span', { class: 'badge' }, incident.acknowledged ? texts.acknowledged : texts.open),
      h(
        'span',
        { class: 'num dim' },
        `${time(incident.since_ms, status.now_ms)} · ${duration((status.now_ms - incident.since_ms) / 1_000)}`,
      ),
    )
  }
  return h(
    'section',
    { class: 'panel' },
    h('header', {}, h('h2', {}, texts.incidents)),
    status.incidents.length ? h('ul', { class: 'incidents' }, status.incidents.map(row)) : h('p', { class: 'body dim' }, texts.noIncidents),
  )
}

/** Texts of operators. */
function announcements(status: Status): HTMLElement | null {
  if (status.announcements.length === 0) return null
  const row = ({ title, state, updates }: Status['announcements'][number]) =>
    h(
      'li',
      {},
      h('b', {}, title),
      h('span', { class: 'badge' }, texts.announcement[state]),
      updates.map(({ at_ms: at, text }) =>
        h('p', {}, h('span', { class: 'num dim' }, time(at ?? 0, status.now_ms)), h('span', { class: 'text' }, text)),
      ),
    )
  return h(
    'section',
    { class: 'panel' },
    h('header', {}, h('h2', {}, texts.announcements)),
    h('ul', { class: 'incidents' }, status.announcements.map(row)),
  )
}

/** Steps of a line. */
const STEPS = 30
const isPercent = (name: string) => name === 'cpu' || name === 'memory' || name === 'disk'

function values(status: Status): HTMLElement | null {
  if (status.metrics.length === 0) return null
  const names = status.metrics.flatMap((metric) => (metric === 'network' ? (['rx', 'tx'] as const) : [metric]))
  const value = (host: StatusHost, name: (typeof names)[number]) => {
    const number = host.values[name]
    const text = number === null ? texts.noValue : isPercent(name) ? `${number}%` : name === 'load' ? number.toFixed(2) : byteRate(number)
    const meter = isPercent(name) && typeof number === 'number' && h('meter', { min: 0, max: 100, value: number, 'aria-hidden': 'true' })
    const recent = host.recent[name] ?? []
    const path = linePath(recent, isPercent(name) ? 100 : Math.max(1, ...recent.map(Number)))
    // Hosts without two points in a row have the same box, so that the cards are alike.
    const line = h('dd', { class: 'line' }, spark(path, STEPS))
    return [h('dt', {}, texts.values[name]), h('dd', {}, h('span', { class: 'num' }, text), meter), line]
  }
  const hosts = status.groups.flatMap((group) => group.hosts)
  const card = (host: StatusHost) =>
    h(
      'li',
      {},
      h('b', {}, host.name),
      h(
        'dl',
        {},
        names.flatMap((name) => value(host, name)),
      ),
    )
  return h(
    'section',
    { class: 'panel' },
    h('header', {}, h('h2', {}, texts.now), h('span', { class: 'dim' }, texts.lines)),
    h('ul', { class: 'values' }, hosts.map(card)),
  )
}

/** The whole page below its heading. */
export function sections(status: Status): HTMLElement[] {
  return [hero(status), announcements(status), incidents(status), ...groups(status), legend(), values(status)].filter(
    (section) => section !== null,
  )
}

export function footer(status: Status): HTMLElement {
  return h(
    'footer',
    { class: 'dim' },
    h('span', {}, fill(texts.expires, { date: date(status.expires_ms) })),
    h('span', {}, `${texts.utc} · ${texts.product}`),
  )
}

// Values of settings as typed text: durations such as `14d` or `1h30m`, sizes such as `20 GiB`, whole numbers.

export type ValueKind = 'seconds' | 'milliseconds' | 'bytes' | 'count'

const DURATIONS: [string, number][] = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
  ['ms', 1],
]
/** Other spellings of the units. */
const ALIASES: Record<string, string> = { day: 'd', days: 'd', hour: 'h', hours: 'h', min: 'm', minutes: 'm', sec: 's', w: 'w', y: 'y' }
const MS_OF: Record<string, number> = { ...Object.fromEntries(DURATIONS), w: 7 * 86_400_000, y: 365 * 86_400_000 }
const SIZES: [string, number][] = [
  ['TiB', 2 ** 40],
  ['GiB', 2 ** 30],
  ['MiB', 2 ** 20],
  ['KiB', 2 ** 10],
  ['B', 1],
]

function parseDuration(text: string): number | null {
  if (!/^(\d+(\.\d+)?\s*[a-z]+\s*)+$/.test(text)) return null
  let sum = 0
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d+)?)\s*([a-z]+)/g)) {
    const ms = MS_OF[ALIASES[unit!] ?? unit!]
    if (ms === undefined) return null
    sum += Number(number) * ms
  }
  return sum
}

function parseSize(text: string): number | null {
  // A number without a unit is in GiB.
  const match = /^(\d+(?:\.\d+)?)\s*(?:([kmgt]?)i?b)?$/.exec(text)
  if (!match) return null
  return Math.round(Number(match[1]) * 1024 ** ' kmgt'.indexOf((match[2] ?? 'g') || ' '))
}

/** Value of a text; null if the text is not of this kind. */
export function parseValue(text: string, kind: ValueKind): number | null {
  const input = text.trim().toLowerCase().replace(/,/g, '')
  if (kind === 'count') return /^\d+$/.test(input) ? Number(input) : null
  if (kind === 'bytes') return parseSize(input)
  const ms = parseDuration(input)
  return ms === null ? null : kind === 'milliseconds' ? ms : Math.round(ms / 1000)
}

/** Largest unit that divides the value exactly; the smallest for zero. */
function exact(value: number, units: [string, number][]): string {
  const [name, size] = units.find(([, size]) => value >= size && value % size === 0) ?? units[units.length - 1]!
  return `${value / size} ${name}`
}

/** Text that `parseValue` reads back. */
export function formatValue(value: number, kind: ValueKind): string {
  if (kind === 'count') return String(value)
  if (kind === 'bytes') return exact(value, SIZES)
  return kind === 'milliseconds' ? exact(value, DURATIONS) : exact(value * 1000, DURATIONS.slice(0, -1))
}

/** Days, hours or minutes in words for sentences: the two largest units at most. */
export function span(seconds: number): string {
  const days = Math.floor(seconds / 86_400)
  if (days >= 400) return `${+(days / 365).toFixed(1)} years`
  if (days >= 2) return `${days} days`
  const hours = Math.floor(seconds / 3600)
  if (hours >= 2) return `${hours} hours`
  return `${Math.max(1, Math.floor(seconds / 60))} min`
}

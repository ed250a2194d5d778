// Units of the catalogue as charts know them.
import type { Unit } from '../../lib/format'

const KNOWN: Unit[] = ['percent', 'bytes', 'bytes_per_second', 'per_second', 'count', 'milliseconds', 'celsius', 'megahertz']

/** What a chart counts in; things, where it knows no better. */
export function chartUnit(unit: string | undefined): Unit {
  return KNOWN.find((known) => known === unit) ?? 'count'
}

/** Where this browser is; empty for UTC. */
export function ownZone(): string {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone
  return zone === 'UTC' ? '' : zone
}

const SIGNS: Record<string, string> = {
  percent: '%',
  bytes: 'bytes',
  bytes_per_second: 'bytes/s',
  per_second: 'per second',
  milliseconds: 'ms',
  seconds: 's',
  celsius: '°C',
  megahertz: 'MHz',
  bits_per_second: 'bit/s',
  rpm: 'rpm',
  flag: '0 or 1',
}

/** What stands behind a field for a number. */
export const unitSign = (unit: string | undefined) => SIGNS[unit ?? ''] ?? ''

// Units of the metric catalog in charts and form fields.
import { messageText } from '../../i18n'
import type { Unit } from '../../lib/format'
import { zoneName } from '../../lib/zone'

const CHART_UNITS: Unit[] = [
  'percent',
  'bytes',
  'bytes_per_second',
  'bits_per_second',
  'per_second',
  'count',
  'milliseconds',
  'seconds',
  'celsius',
  'megahertz',
  'rpm',
]

/** Unit of a chart's values; units without a format of their own are shown as counts. */
export function chartUnit(unit: string | undefined): Unit {
  return CHART_UNITS.find((supported) => supported === unit) ?? 'count'
}

/** Unit that is shown after the label of a number field; empty for counts. */
export const unitSuffix = (unit: string | undefined) => messageText(`alerts.units.${unit}`) ?? ''

/** Time zone of the page; empty for UTC. */
export function localTimeZone(): string {
  const name = zoneName()
  return name === 'UTC' ? '' : name
}

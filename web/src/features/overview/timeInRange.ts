import { clockShort, dateTime } from '../../lib/format'
import { hubNow } from '../../lib/hubClock'
import { isSameDay } from '../../lib/zone'

/** Time of a chart in Unix milliseconds; of another day with its date. */
export const timeInRange = (ms: number) => (isSameDay(ms, hubNow()) ? clockShort(ms) : dateTime(ms))

// Times of day that have their date unless it is today. In a file of its own: the first load needs none of them.
import { clock, clockShort, day } from './lib/format'
import { hubNow } from './lib/hubClock'
import { isSameDay } from './lib/zone'

const withDay = (ms: number, time: string, dayMs: number) => (isSameDay(ms, dayMs) ? time : `${day(ms)}, ${time}`)

/** Time of day with seconds; of another day than that of `dayMs`, by default today, with its date. */
export const dayClock = (ms: number, dayMs = hubNow()) => withDay(ms, clock(ms), dayMs)

/** Time of day without seconds; of another day than that of `dayMs`, by default today, with its date. */
export const dayClockShort = (ms: number, dayMs = hubNow()) => withDay(ms, clockShort(ms), dayMs)

/** Two times as a range: the date is repeated only if both days differ. */
export const clockRange = (fromMs: number, toMs: number) =>
  `${dayClock(fromMs)} – ${isSameDay(fromMs, toMs) ? clock(toMs) : dayClock(toMs)}`

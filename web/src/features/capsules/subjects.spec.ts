import { describe, expect, it } from 'vitest'
import type { Incident } from '../../api/types'
import { incidentSubject } from './subjects'

const HOUR_MS = 3_600_000
const OPENED_MS = 1_000 * HOUR_MS
const NOW_MS = OPENED_MS + HOUR_MS

function incident(alerts: [firedMs: number, resolvedMs: number | null][]): Incident {
  const list = alerts.map(([fired_ms, resolved_ms]) => ({ host: 'a', fired_ms, resolved_ms }))
  return { id: 'i', title: 'CPU is high', opened_ms: OPENED_MS, alerts: list } as unknown as Incident
}
/** Hours of the window from the opening of the incident. */
function hours(alerts: [firedMs: number, resolvedMs: number | null][]) {
  const { fromMs, toMs } = incidentSubject(incident(alerts), NOW_MS)
  return [(fromMs - OPENED_MS) / HOUR_MS, (toMs - OPENED_MS) / HOUR_MS]
}

describe('incidentSubject', () => {
  it('window contains the incident with the time around it', () => {
    expect(hours([[OPENED_MS, null]])).toEqual([-0.25, 1])
    expect(hours([[OPENED_MS - HOUR_MS, OPENED_MS + HOUR_MS / 2]])).toEqual([-1.25, 0.5 + 1 / 12])
  })

  it('window begins at the opening if an alert fired days before', () => {
    expect(
      hours([
        [OPENED_MS - 100 * HOUR_MS, null],
        [OPENED_MS, null],
      ]),
    ).toEqual([-0.25, 1])
  })
})

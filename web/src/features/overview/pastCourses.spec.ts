import { describe, expect, it } from 'vitest'
import type { QueryResponse } from '../../api/types'
import { COURSE_POINTS } from './course'
import { PastCourses } from './pastCourses'

const MINUTE_MS = 60_000
/** Start of the range of courses from 5 to 10 minutes later. */
const START_MS = 6_000_000 * MINUTE_MS
const NOW_MS = START_MS + 60 * MINUTE_MS

/** Answer with a value per step, the number of the step, for the CPU of each host. */
function answer(hosts: string[], startMs: number, stepMs: number, length: number): QueryResponse {
  const v = Array.from({ length }, (_, step) => step)
  return { start_ms: startMs, step_ms: stepMs, series: hosts.map((host) => ({ host, query: 'cpu', v })) } as unknown as QueryResponse
}

describe('PastCourses', () => {
  it('requests the minutes around a time once, and hosts that become visible', () => {
    const past = new PastCourses()
    const at = START_MS + 6 * MINUTE_MS
    const first = past.missing(['a', 'b'], at, NOW_MS)!
    expect([Number(first.from), Number(first.to)]).toEqual([START_MS, START_MS + 10 * MINUTE_MS])
    expect(first.queries.map(({ metric }) => metric)).toEqual(['cpu.usage', 'network.total.rx_bytes'])
    past.add(first, answer(['a'], START_MS, 10_000, 60))
    // A host without data is not requested again, and later times of the range neither.
    expect(past.missing(['a', 'b'], at + 3 * MINUTE_MS, NOW_MS)).toBeNull()
    const second = past.missing(['a', 'c'], at, NOW_MS)!
    expect(second.queries[0]!.hosts).toEqual({ hosts: ['c'] })
    past.add(second, answer(['c'], START_MS, 10_000, 60))
    expect(past.courseBefore('a', at).cpu.at(-1)).toBe(36)
    expect(past.courseBefore('c', at).cpu.at(-1)).toBe(36)
    const later = past.missing(['a'], START_MS + 10 * MINUTE_MS, NOW_MS)!
    expect(Number(later.from)).toBe(START_MS + 5 * MINUTE_MS)
  })

  it('ends a course at the time of the replay', () => {
    const past = new PastCourses()
    const at = START_MS + 6 * MINUTE_MS
    past.add(past.missing(['a'], at, NOW_MS)!, answer(['a'], START_MS, 10_000, 60))
    const { cpu, rx } = past.courseBefore('a', at)
    expect([cpu[0], cpu[28], cpu[29]]).toEqual([7, 35, 36])
    expect(rx.every(Number.isNaN)).toBe(true)
    expect(past.courseBefore('b', at).cpu).toEqual(new Float32Array(COURSE_POINTS).fill(NaN))
    // What is not loaded is a gap.
    expect(past.courseBefore('a', START_MS + MINUTE_MS).cpu.filter((value) => !Number.isNaN(value))).toHaveLength(7)
  })

  it('requests the newest minutes again when time went on', () => {
    const past = new PastCourses()
    const now = START_MS + 7 * MINUTE_MS
    const request = past.missing(['a'], now - MINUTE_MS, now)!
    expect(Number(request.to)).toBe(now)
    past.add(request, answer(['a'], START_MS, 10_000, 42))
    expect(past.missing(['a'], now - 1_000, now + MINUTE_MS)).toBeNull()
    expect(Number(past.missing(['a'], now + 1_000, now + MINUTE_MS)!.to)).toBe(now + MINUTE_MS)
  })

  it('repeats values of minutes and shows none of hours', () => {
    const past = new PastCourses()
    const at = START_MS + 6 * MINUTE_MS
    past.add(past.missing(['a'], at, NOW_MS)!, answer(['a'], START_MS, MINUTE_MS, 10))
    const { cpu } = past.courseBefore('a', at)
    expect([cpu[0], cpu[5], cpu[6], cpu[29]]).toEqual([1, 2, 2, 6])
    past.clear()
    past.add(past.missing(['a'], at, NOW_MS)!, answer(['a'], START_MS, 60 * MINUTE_MS, 1))
    expect(past.courseBefore('a', at).cpu.every(Number.isNaN)).toBe(true)
    expect(past.missing(['a'], at, NOW_MS)).toBeNull()
  })
})

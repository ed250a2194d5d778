import { describe, expect, it } from 'vitest'
import type { OverviewResponse } from '../../api/types'
import { COURSE_POINTS, COURSE_STEP_MS } from './course'
import { Fleet } from './fleet'

const START_MS = 1_800_000_000_000

function answer(nowMs: number, cpu: (number | null)[], ids: string[] | null, recent?: number[]): OverviewResponse {
  const none = cpu.map(() => null)
  return {
    now_ms: nowMs,
    revision: ids?.join() ?? 'same',
    hosts: ids?.map((id) => ({ id, name: id, tags: [], collection_method: 'agent' as const })) ?? null,
    recent: recent ? { step_ms: COURSE_STEP_MS, cpu: [recent], rx: [recent] } : null,
    values: {
      status: cpu.map(() => 'online' as const),
      last_seen_ms: none,
      cpu,
      memory: none,
      disk: none,
      disk_mount: none,
      rx: none,
      tx: none,
      load: none,
      pressure: none,
      uptime_s: none,
      critical: cpu.map(() => 0),
      warning: cpu.map(() => 0),
    },
  } as unknown as OverviewResponse
}

describe('Fleet', () => {
  it('keeps the hosts of an answer that omits them', () => {
    const fleet = new Fleet()
    fleet.update(answer(START_MS, [1, 2], ['a', 'b']))
    fleet.update(answer(START_MS + 2_000, [3, 4], null))
    expect(fleet.hosts.map(({ id }) => id)).toEqual(['a', 'b'])
    expect(fleet.values.cpu).toEqual([3, 4])
  })

  it('starts with the recent course and moves it with the steps', () => {
    const fleet = new Fleet()
    fleet.update(answer(START_MS, [9], ['a'], [5, 6, 7]))
    const newestPoints = (count: number) => [...fleet.course('a').cpu.slice(-count)]
    expect(newestPoints(3)).toEqual([5, 6, 9])
    fleet.update(answer(START_MS + 2_000, [10], null))
    expect(newestPoints(3)).toEqual([5, 6, 10])
    fleet.update(answer(START_MS + COURSE_STEP_MS, [11], null))
    expect(newestPoints(3)).toEqual([6, 10, 11])
    // Steps without an answer are a gap, not a line.
    fleet.update(answer(START_MS + 3 * COURSE_STEP_MS, [null], null))
    expect(newestPoints(4)).toEqual([10, 11, NaN, NaN])
    fleet.update(answer(START_MS + 900 * COURSE_STEP_MS, [1], null))
    expect(fleet.course('a').cpu.filter((value) => !Number.isNaN(value))).toHaveLength(1)
    expect(fleet.course('a').cpu).toHaveLength(COURSE_POINTS)
  })

  it('has the time of a replay and no course of other times', () => {
    const fleet = new Fleet()
    fleet.update(answer(START_MS, [9], ['a'], [5, 6, 7]))
    const replay = { at_ms: START_MS - 3_600_000 } as OverviewResponse['replay']
    fleet.update({ ...answer(START_MS, [3], null), replay })
    expect(fleet.nowMs).toBe(START_MS - 3_600_000)
    expect(fleet.course('a').cpu.every(Number.isNaN)).toBe(true)
    // The newest values come with their course again.
    fleet.update(answer(START_MS + 2_000, [10], ['a'], [5, 6, 7]))
    expect([...fleet.course('a').cpu.slice(-3)]).toEqual([5, 6, 10])
  })

  it('forgets the course of a removed host', () => {
    const fleet = new Fleet()
    fleet.update(answer(START_MS, [1, 2], ['a', 'b']))
    fleet.update(answer(START_MS + 1, [2], ['b']))
    expect(fleet.course('a').cpu.every(Number.isNaN)).toBe(true)
    expect(fleet.course('b').cpu.at(-1)).toBe(2)
  })
})

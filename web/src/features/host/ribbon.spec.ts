import { expect, it } from 'vitest'
import type { HostEvent, SeriesResponse } from '../../api/types'
import { HistoryColumns } from '../../live/history'
import { COLUMNS, endText, ribbonOf, RibbonScale, withReasons } from './ribbon'

const SPAN_MS = COLUMNS * 1_000
const answer = (more: Partial<SeriesResponse>) =>
  ({ host_id: 'a', from_ms: 0, to_ms: SPAN_MS, step_ms: 0, tier: 'raw', t: [], gaps: [], series: [], ...more }) as SeriesResponse
const ribbon = (data: SeriesResponse) => ribbonOf(data, new HistoryColumns(data))

it('points fill their columns with the maximum, others stay empty', () => {
  const series = [{ metric: 'cpu.usage', instance: '', unit: null, v: [5, 6], min: [1, 1], max: [50, 60] }]
  const [cpu, memory] = ribbon(answer({ step_ms: 2_000, t: [10_000, 12_000], series })).rows
  expect([...cpu!.values.slice(9, 15)]).toEqual([NaN, 50, 50, 60, 60, NaN])
  expect(memory!.values.every((value) => Number.isNaN(value))).toBe(true)
})

it('rows fill the time since the one before', () => {
  const series = [{ metric: 'memory.used_percent', instance: '', unit: null, v: [20, 30, 40] }]
  const [, memory] = ribbon(answer({ t: [3_000, 6_000, 9_000], series })).rows
  expect([...memory!.values.slice(3, 10)]).toEqual([30, 30, 30, 40, 40, 40, NaN])
})

it('without pressure, the busiest disk stands for I/O', () => {
  const disk = (instance: string, v: number[]) => ({ metric: 'disk.utilization', instance, unit: null, v, min: v, max: v })
  const [, , io] = ribbon(answer({ step_ms: 1_000, t: [0, 1_000], series: [disk('sda', [10, 80]), disk('sdb', [30, 20])] })).rows
  expect([...io!.values.slice(0, 2)]).toEqual([30, 80])
})

it('positions and times convert, and narrow windows are moved instead of resized', () => {
  const scale = new RibbonScale({ from: 0, to: 1_000 }, 1_076)
  expect(scale.x(500)).toBe(562)
  expect(scale.time(562)).toBe(500)
  expect(scale.grip(562, [500, 700])).toBe('from')
  expect(scale.grip(762, [500, 700])).toBe('to')
  expect(scale.grip(660, [500, 700])).toBe('window')
  expect(scale.grip(900, [500, 700])).toBeNull()
  expect(scale.window([999, 1_000])).toEqual([1_053, 1_062])
  expect(scale.grip(1_055, [999, 1_000])).toBe('window')
})

it('gaps of a coarse resolution get the reason of the event', () => {
  const event = (kind: 'gap' | 'reboot', from_ms: number, detail = '') => ({ kind, from_ms, to_ms: from_ms + 10_000, detail }) as HostEvent
  const gap = (from: number) => ({ from, to: from + 10, reason: 'unknown' })
  const found = withReasons([gap(0), gap(50), gap(100)], [event('gap', 2_000, 'agent_stopped'), event('reboot', 55_000)])
  expect(found.map(({ reason }) => reason)).toEqual(['agent_stopped', 'host_restarted', 'unknown'])
})

it('the bar of a recording does not end now', () => {
  const to = Date.now()
  expect(endText(to, false)).toBe('now')
  expect(endText(to, true)).toMatch(/^\d\d:\d\d$/)
  expect(endText(to - 600_000, false)).toMatch(/^\d\d:\d\d$/)
})

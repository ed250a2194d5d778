import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import type { Alert } from '../../api/types'
import { replayLink, replayText } from './display'

const timeOf = (day: number, second = 0) => new Date(2026, 10, day, 4, 31, second).getTime()
const alert = (more: Partial<Alert>) => ({ host: 'h', metric: 'cpu.usage', fired_ms: timeOf(22, 6), value: 90, ...more }) as Alert

beforeEach(() => void vi.useFakeTimers({ now: timeOf(30) }))
afterEach(() => void vi.useRealTimers())

it('a replay of another day names the date', () => {
  expect(replayText(alert({}))).toBe('Replay at Nov 22, 04:31:06')
  expect(replayText(alert({ fired_ms: timeOf(30, 6) }))).toBe('Replay at 04:31:06')
})

it('a replay of a host without data shows its last sample', () => {
  const silent = alert({ metric: '', value: 4 })
  expect(replayText(silent)).toBe('Replay the last sample, Nov 22, 04:31:02')
  expect(replayLink(silent)).toContain(`&at=${timeOf(22, 2)}`)
})

it('an alert of the hub has no replay', () => {
  expect(replayLink(alert({ host: '', metric: '' }))).toBe('')
})

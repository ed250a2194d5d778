import { expect, it } from 'vitest'
import type { CollectionStep, FailureCause, Server } from '../../api/types'
import { failedStage, failureText } from './labels'

const steps = (...stages: CollectionStep['stage'][]) => stages.map((stage): CollectionStep => ({ stage, detail: '', duration_ms: 1 }))

it.each([
  ['unreachable', steps('resolve'), 'connect'],
  ['unreachable', steps('resolve', 'connect', 'handshake', 'authenticate'), 'connect'],
  ['timed_out', steps('resolve', 'connect'), 'handshake'],
  ['timed_out', [], 'resolve'],
  ['internal', steps('read'), 'read'],
  [null, steps('resolve'), null],
] as const)('stage of a failure %s', (cause, done, expected) => {
  expect(failedStage(done, cause as FailureCause | null)).toBe(expected)
})

it('a failure names its stage', () => {
  const last = { cause: 'unreachable', error: 'Connection refused', finished_ms: Date.now(), duration_ms: 1 }
  expect(failureText({ enabled: true, last } as Server)).toMatch(/^Collection failed at \d\d:\d\d:\d\d, stage Connect: Connection refused$/)
  expect(failureText({ enabled: true, last: { ...last, cause: null } } as unknown as Server)).toBe('')
  expect(failureText({ enabled: false, last } as Server)).toBe('')
})

import { beforeEach, expect, it, vi } from 'vitest'

beforeEach(() => {
  vi.resetModules()
  localStorage.clear()
})

it('pins are kept; the oldest goes when there are too many', async () => {
  const { MAX_PINS, pins, togglePin } = await import('./pins')
  for (let at = 0; at <= MAX_PINS; at++) togglePin(`host-${at}`)
  expect(pins.value).toHaveLength(MAX_PINS)
  expect(pins.value[0]).toBe('host-1')
  togglePin('host-1')
  expect(pins.value).not.toContain('host-1')
  vi.resetModules()
  expect((await import('./pins')).pins.value).toEqual(pins.value)
})

it('an unreadable list is empty', async () => {
  localStorage.setItem('perfwatch.pins', '{"a":')
  expect((await import('./pins')).pins.value).toEqual([])
})

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { pointerHooks, touchMode } from './pointer'

/** Plot of 100 px over the times 1,000 to 2,000. */
function start() {
  const over = document.createElement('div')
  Object.defineProperty(over, 'clientWidth', { value: 100 })
  over.getBoundingClientRect = () => ({ left: 0, top: 0, width: 100, height: 50 }) as DOMRect
  const events: unknown[][] = []
  const plot = {
    over,
    cursor: { left: 50 },
    select: { left: 20, width: 30 },
    scales: { x: { min: 1_000, max: 2_000 } },
    posToVal: (x: number) => 1_000 + x * 10,
    setCursor: ({ left }: { left: number }) => events.push(['setCursor', left]),
    setSelect: () => undefined,
  }
  const log =
    (name: string) =>
    (...values: unknown[]) =>
      events.push([name, ...values])
  const handlers = { press: vi.fn(), cursor: log('cursor'), pick: log('pick'), zoom: log('zoom'), pan: log('pan') }
  const hooks = pointerHooks(handlers as never)
  hooks.ready(plot as never)
  const touch = (type: string, x: number, y = 10) => {
    const event = new Event(type, { cancelable: true })
    const touches = [{ clientX: x, clientY: y }]
    Object.assign(event, { touches, targetTouches: touches })
    over.dispatchEvent(event)
    return event.defaultPrevented
  }
  return { over, plot, hooks, events, touch, press: handlers.press }
}

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

describe('touch', () => {
  it('a movement is a pan or a scroll by its direction', () => {
    expect([touchMode(3, -3), touchMode(20, 5), touchMode(-20, 5), touchMode(5, 20)]).toEqual(['waiting', 'pan', 'pan', 'scroll'])
  })

  it('a drag moves the range', () => {
    const { events, touch } = start()
    touch('touchstart', 50)
    expect(touch('touchmove', 70)).toBe(true)
    expect(touch('touchend', 70)).toBe(true)
    expect(events).toEqual([
      ['pan', 800, 1_800, false],
      ['pan', 800, 1_800, true],
    ])
    vi.advanceTimersByTime(1_000)
    expect(events).toHaveLength(2)
  })

  it('a long press shows the cursor until the finger is lifted', () => {
    const { events, touch } = start()
    touch('touchstart', 50)
    vi.advanceTimersByTime(400)
    touch('touchmove', 80)
    touch('touchend', 80)
    expect(events).toEqual([
      ['setCursor', 50],
      ['cursor', 1_500],
      ['setCursor', 80],
      ['cursor', 1_800],
      ['setCursor', -10],
      ['cursor', null],
    ])
  })

  it('vertical movement scrolls the page, and a tap stays a click', () => {
    const { events, touch } = start()
    touch('touchstart', 50)
    expect(touch('touchmove', 52, 60)).toBe(false)
    expect(touch('touchend', 52, 60)).toBe(false)
    touch('touchstart', 50)
    expect(touch('touchend', 50)).toBe(false)
    vi.advanceTimersByTime(1_000)
    expect(events).toEqual([])
  })
})

it('the click at the end of a selection pins no time', () => {
  const { over, plot, hooks, events } = start()
  over.dispatchEvent(new MouseEvent('mousedown'))
  hooks.setSelect(plot as never)
  over.dispatchEvent(new MouseEvent('click', { detail: 1 }))
  over.dispatchEvent(new MouseEvent('mousedown'))
  over.dispatchEvent(new MouseEvent('click', { detail: 1 }))
  expect(events).toEqual([
    ['zoom', 1_200, 1_500],
    ['pick', 1_500],
  ])
})

it('holds the chart while a button or a finger is down', () => {
  const { over, press, touch } = start()
  over.dispatchEvent(new MouseEvent('mousedown'))
  expect(press.mock.lastCall).toEqual([true])
  // The button is released outside the chart.
  window.dispatchEvent(new MouseEvent('mouseup'))
  expect(press.mock.lastCall).toEqual([false])
  touch('touchstart', 50)
  expect(press.mock.lastCall).toEqual([true])
  // Another finger rests beside the chart.
  const end = Object.assign(new Event('touchend'), { touches: [{}], targetTouches: [] })
  over.dispatchEvent(end)
  expect(press.mock.lastCall).toEqual([false])
  window.dispatchEvent(new MouseEvent('mouseup'))
  expect(press).toHaveBeenCalledTimes(4)
  over.dispatchEvent(new MouseEvent('mousedown', { button: 2 }))
  expect(press).toHaveBeenCalledTimes(4)
  over.dispatchEvent(new MouseEvent('mousedown'))
  window.dispatchEvent(new Event('blur'))
  expect(press.mock.lastCall).toEqual([false])
  expect(press).toHaveBeenCalledTimes(6)
})

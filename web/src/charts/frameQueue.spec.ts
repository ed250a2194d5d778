import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { cancelDrawing, drawSoon } from './frameQueue'

const frames: FrameRequestCallback[] = []
const nextFrame = () => frames.splice(0).forEach((callback) => callback(0))

beforeEach(() => vi.stubGlobal('requestAnimationFrame', (callback: FrameRequestCallback) => frames.push(callback)))
afterEach(() => {
  while (frames.length > 0) nextFrame()
  vi.unstubAllGlobals()
})

it('spreads drawings over frames in their order, each once', () => {
  const drawn: number[] = []
  const draws = [0, 1, 2, 3, 4].map((number) => () => void drawn.push(number))
  draws.forEach(drawSoon)
  draws.forEach(drawSoon)
  expect(drawn).toEqual([])
  nextFrame()
  expect(drawn).toEqual([0, 1, 2])
  // A chart that changes again waits behind the others.
  drawSoon(draws[0]!)
  nextFrame()
  expect(drawn).toEqual([0, 1, 2, 3, 4, 0])
  expect(frames).toEqual([])
})

it('forgets drawings of removed charts', () => {
  const draw = vi.fn()
  drawSoon(draw)
  cancelDrawing(draw)
  nextFrame()
  expect(draw).not.toHaveBeenCalled()
})

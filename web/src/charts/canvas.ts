// Canvas in device pixels, and the drawing of small lines that several charts share.
import { onBeforeUnmount, onMounted, type Ref, watch, type WatchSource } from 'vue'
import { color, themeVersion } from '../lib/theme'

/** Size of a pixel of the screen in CSS pixels. */
export const pixelRatio = () => window.devicePixelRatio || 1

export interface Target {
  context: CanvasRenderingContext2D
  width: number
  height: number
  /** Whether the canvas is empty: it has a new size, or its content is not kept. */
  isEmpty: boolean
}

/** Context in CSS pixels with its size; null while the canvas is not shown. `keep` leaves the content of the last time. */
export function prepare(canvas: HTMLCanvasElement | undefined, keep = false): Target | null {
  const context = canvas?.getContext('2d')
  if (!canvas || !context || canvas.clientWidth === 0) return null
  const ratio = pixelRatio()
  const [width, height] = [canvas.clientWidth, canvas.clientHeight]
  let isEmpty = !keep
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio)
    canvas.height = Math.round(height * ratio)
    isEmpty = true
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0)
  if (!keep) context.clearRect(0, 0, width, height)
  return { context, width, height, isEmpty }
}

export interface Box {
  x: number
  y: number
  width: number
  height: number
}

/** Line with a filled area in a box; gaps (NaN) break it. `max` is the upper end, by default that of the values. */
export function drawSpark(context: CanvasRenderingContext2D, points: ArrayLike<number>, box: Box, token: string, max?: number) {
  let top = max ?? 0
  if (max === undefined) for (let at = 0; at < points.length; at++) top = Math.max(top, points[at] || 0)
  const x = (at: number) => box.x + (at / (points.length - 1)) * box.width
  const y = (value: number) => box.y + box.height - 1 - (top > 0 ? Math.min(value / top, 1) : 0) * (box.height - 2)
  context.strokeStyle = context.fillStyle = color(token)
  context.lineWidth = 1.3
  context.lineJoin = 'round'
  let start = -1
  for (let at = 0; at <= points.length; at++) {
    const isValue = at < points.length && !Number.isNaN(points[at])
    if (isValue && start < 0) start = at
    if (isValue || start < 0) continue
    context.beginPath()
    for (let index = start; index < at; index++) context.lineTo(x(index), y(points[index]!))
    context.stroke()
    context.lineTo(x(at - 1), box.y + box.height)
    context.lineTo(x(start), box.y + box.height)
    context.globalAlpha = 0.16
    context.fill()
    context.globalAlpha = 1
    start = -1
  }
}

export type HatchPattern = 'diagonal' | 'horizontal' | 'vertical'

/** Lines over an area, by default over one without data. */
export function hatch(context: CanvasRenderingContext2D, box: Box, pattern: HatchPattern = 'diagonal', token = 'hatch') {
  context.save()
  context.beginPath()
  context.rect(box.x, box.y, box.width, box.height)
  context.clip()
  context.strokeStyle = color(token)
  context.lineWidth = 1.5
  context.beginPath()
  const [left, right, top, bottom] = [box.x, box.x + box.width, box.y, box.y + box.height]
  const line = (...[x, y, toX, toY]: [number, number, number, number]) => {
    context.moveTo(x, y)
    context.lineTo(toX, toY)
  }
  if (pattern === 'diagonal') for (let x = left - box.height; x < right; x += 5) line(x, bottom, x + box.height, top)
  else if (pattern === 'horizontal') for (let y = top + 2.5; y < bottom; y += 5) line(left, y, right, y)
  else for (let x = left + 2.5; x < right; x += 5) line(x, top, x, bottom)
  context.stroke()
  context.restore()
}

/** Draws after changes of the sources, of the theme, of the fonts and of the size. */
export function useDrawing(element: Ref<HTMLElement | undefined>, sources: WatchSource[], draw: () => void) {
  let frame = 0
  const schedule = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0
      draw()
    })
  }
  let resize: ResizeObserver | undefined
  onMounted(() => {
    resize = new ResizeObserver(schedule)
    if (element.value) resize.observe(element.value)
    void document.fonts?.ready.then(schedule)
    schedule()
  })
  onBeforeUnmount(() => {
    resize?.disconnect()
    cancelAnimationFrame(frame)
  })
  watch([...sources, themeVersion], schedule, { flush: 'post' })
  return schedule
}

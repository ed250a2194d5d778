// Time bar of the flight recorder: its columns, positions and drawing.
import './texts'
import type { HostEvent, SeriesResponse } from '../../api/types'
import { formatTick, timeTicks } from '../../charts/axes'
import { drawGap } from '../../charts/marks'
import { t } from '../../i18n'
import { clock, clockShort, day } from '../../lib/format'
import { hubNow } from '../../lib/hubClock'
import { levelColor } from '../../lib/levels'
import { color } from '../../lib/theme'
import type { Columns, Gap, Value } from '../../live/columns'

/** Number of columns over the span. */
export const COLUMNS = 288

/** Maxima per column and row, in percent; NaN without data. */
export interface Ribbon {
  /** Bounds in Unix seconds. */
  from: number
  to: number
  rows: { key: 'cpu' | 'memory' | 'io'; values: Float32Array }[]
  gaps: readonly Gap[]
}

/** Gaps with the reasons of events: values of a coarse resolution do not have them. */
export function withReasons(gaps: readonly Gap[], events: readonly HostEvent[]): Gap[] {
  return gaps.map((gap) => {
    if (gap.reason !== 'unknown') return gap
    const overlap = ({ from_ms, to_ms }: HostEvent) => Math.min((to_ms ?? Infinity) / 1000, gap.to) - Math.max(from_ms / 1000, gap.from)
    const [event] = events.filter(({ kind }) => kind === 'gap' || kind === 'reboot').sort((a, b) => overlap(b) - overlap(a))
    if (!event || overlap(event) <= 0) return gap
    return { ...gap, reason: event.kind === 'reboot' ? 'host_restarted' : event.detail }
  })
}

/** Adds the maximum of a series to columns; a row covers the time since the one before, a point that after it. */
function addMaxima(into: Float32Array, columns: Columns, values: readonly Value[], isPoint: boolean, ribbon: { from: number; to: number }) {
  const width = (ribbon.to - ribbon.from) / COLUMNS
  const indexOf = (time: number) => Math.min(Math.max(Math.floor((time - ribbon.from) / width), 0), COLUMNS - 1)
  values.forEach((value, row) => {
    if (value === null) return
    const [time, step] = [columns.times[row]!, Math.min(columns.steps[row]!, ribbon.to - ribbon.from)]
    const [first, last] = isPoint ? [time, time + step - 0.001] : [time - step + 0.001, time - 0.001]
    for (let at = indexOf(first); at <= indexOf(last); at++) if (!(into[at]! >= value)) into[at] = value
  })
}

/** Columns of an answer with the series of the time bar. */
export function ribbonOf(answer: Pick<SeriesResponse, 'from_ms' | 'to_ms'>, columns: Columns & { step: number }): Ribbon {
  const bounds = { from: answer.from_ms / 1000, to: answer.to_ms / 1000 }
  const rowOf = (key: 'cpu' | 'memory' | 'io', metric: string, instances = ['']) => {
    const values = new Float32Array(COLUMNS).fill(NaN)
    for (const instance of instances) {
      const maxima = columns.band?.(metric, instance)?.max ?? columns.get(metric, instance)
      addMaxima(values, columns, maxima, columns.step > 0, bounds)
    }
    return { key, values }
  }
  const io = columns.has('pressure.io.some')
    ? rowOf('io', 'pressure.io.some')
    : rowOf('io', 'disk.utilization', columns.instances('disk.utilization'))
  return { ...bounds, rows: [rowOf('cpu', 'cpu.usage'), rowOf('memory', 'memory.used_percent'), io], gaps: columns.gaps ?? [] }
}

export const HEIGHT = 84
const ROWS_TOP = 22
const ROW_STEP = 13
const ROW_HEIGHT = 11
const ROWS_HEIGHT = 2 * ROW_STEP + ROW_HEIGHT
const RIGHT = 14
/** Distance in pixels at which the pointer grips a handle. */
const GRIP_PX = 9
/** Minimum width of the drawn window. */
const MIN_WINDOW_PX = 9

/** Positions of times on a bar of a width; without room, the names of the rows are left out. */
export class RibbonScale {
  readonly left: number
  constructor(
    readonly ribbon: { from: number; to: number },
    readonly width: number,
  ) {
    this.left = width < 500 ? 12 : 62
  }

  get right() {
    return this.width - RIGHT
  }

  x(time: number): number {
    const share = (time - this.ribbon.from) / (this.ribbon.to - this.ribbon.from)
    return this.left + Math.min(Math.max(share, 0), 1) * (this.right - this.left)
  }

  time(x: number): number {
    const share = Math.min(Math.max((x - this.left) / (this.right - this.left), 0), 1)
    return this.ribbon.from + share * (this.ribbon.to - this.ribbon.from)
  }

  /** Edges of the window, at least some pixels apart. */
  window([from, to]: [number, number]): [number, number] {
    const [a, b] = [this.x(from), this.x(to)]
    return b - a >= MIN_WINDOW_PX ? [a, b] : [Math.max(b - MIN_WINDOW_PX, this.left), b]
  }

  /** Part of the window at a position. */
  grip(x: number, bounds: [number, number]): 'from' | 'to' | 'window' | null {
    const [a, b] = this.window(bounds)
    // A window that is hardly wider than its handles is moved, not resized.
    if (b - a > 3 * GRIP_PX) {
      if (Math.abs(x - a) <= GRIP_PX) return 'from'
      if (Math.abs(x - b) <= GRIP_PX) return 'to'
    }
    return x > a && x < b ? 'window' : null
  }
}

function drawRows(context: CanvasRenderingContext2D, ribbon: Ribbon, scale: RibbonScale) {
  const width = (scale.right - scale.left) / COLUMNS
  context.font = '10.5px Inter, system-ui, sans-serif'
  context.textBaseline = 'middle'
  ribbon.rows.forEach(({ key, values }, row) => {
    const y = ROWS_TOP + row * ROW_STEP
    if (scale.left > 20) {
      context.fillStyle = color('text-2')
      context.textAlign = 'right'
      context.fillText(t(`host.recorder.rows.${key}`), scale.left - 8, y + ROW_HEIGHT / 2 + 0.5)
    }
    values.forEach((value, column) => {
      context.fillStyle = color(Number.isNaN(value) ? 'hatch' : levelColor(value))
      context.fillRect(scale.left + column * width, y, width + 0.4, ROW_HEIGHT)
    })
  })
  for (const gap of ribbon.gaps) {
    const [from, to] = [scale.x(gap.from), scale.x(gap.to)]
    if (to - from >= 1) drawGap(context, gap.reason, { x: from, y: ROWS_TOP, width: to - from, height: ROWS_HEIGHT })
  }
}

/** Mark of an event: octagon and triangle as the icons of severities, an arrow around for a reboot. */
function drawMark(context: CanvasRenderingContext2D, x: number, event: HostEvent) {
  context.beginPath()
  if (event.kind === 'reboot') {
    context.strokeStyle = context.fillStyle = color('text-2')
    context.lineWidth = 1.4
    context.arc(x, 7, 3.6, -0.6, 4.2)
    context.stroke()
    context.beginPath()
    for (const [dx, y] of [
      [1, 1.6],
      [5, 3.8],
      [1.6, 6.4],
    ] as const)
      context.lineTo(x + dx, y)
  } else {
    context.fillStyle = color(`${event.severity}-mark`)
    if (event.severity === 'critical')
      for (let at = 0; at < 8; at++) context.lineTo(x + 4.4 * Math.cos(at * 0.785 + 0.39), 7 + 4.4 * Math.sin(at * 0.785 + 0.39))
    else if (event.severity === 'warning')
      for (const [dx, y] of [
        [0, 2.4],
        [4.8, 10.8],
        [-4.8, 10.8],
      ] as const)
        context.lineTo(x + dx, y)
    else context.arc(x, 7, 3.4, 0, 7)
  }
  context.fill()
}

function drawEvents(context: CanvasRenderingContext2D, events: readonly HostEvent[], scale: RibbonScale) {
  const isInside = (ms: number) => ms / 1000 >= scale.ribbon.from && ms / 1000 <= scale.ribbon.to
  for (const event of events) {
    if (event.kind === 'alert') {
      const [from, to] = [scale.x(event.from_ms / 1000), scale.x((event.to_ms ?? Infinity) / 1000)]
      context.fillStyle = color(`${event.severity}-mark`)
      context.fillRect(from, 15, Math.max(to - from, 3), 3)
      if (isInside(event.from_ms)) drawMark(context, from, event)
    } else if (event.kind === 'reboot' && isInside(event.to_ms ?? event.from_ms)) {
      drawMark(context, scale.x((event.to_ms ?? event.from_ms) / 1000), event)
    }
  }
}

/** Label of the end of the time bar: "now" where it moves. */
export function endText(toMs: number, isRecording: boolean): string {
  return !isRecording && Math.abs(toMs - hubNow()) < 120_000 ? t('host.recorder.now') : clockShort(toMs)
}

function drawAxis(context: CanvasRenderingContext2D, scale: RibbonScale, hiddenAt: number | null, end: string) {
  const { from, to } = scale.ribbon
  const { ticks, spacing } = timeTicks(from, to, Math.max(2, (scale.right - scale.left) / 110))
  context.fillStyle = color('text-2')
  context.textAlign = 'center'
  for (const tick of ticks) {
    const x = scale.x(tick)
    if (x < scale.left + 18 || x > scale.right - 44 || (hiddenAt !== null && Math.abs(x - hiddenAt) < 60)) continue
    context.fillText(formatTick(tick * 1000, spacing), x, HEIGHT - 8)
    context.fillRect(x, ROWS_TOP + ROWS_HEIGHT + 1, 1, 4)
  }
  if (hiddenAt !== null && Math.abs(scale.right - hiddenAt) < 60) return
  context.textAlign = 'right'
  context.fillText(end, scale.right, HEIGHT - 8)
}

function drawWindow(context: CanvasRenderingContext2D, scale: RibbonScale, bounds: [number, number]) {
  const [a, b] = scale.window(bounds)
  context.fillStyle = color('bg')
  context.globalAlpha = 0.4
  context.fillRect(scale.left, ROWS_TOP - 1, a - scale.left, ROWS_HEIGHT + 2)
  context.fillRect(b, ROWS_TOP - 1, scale.right - b, ROWS_HEIGHT + 2)
  context.globalAlpha = 1
  context.strokeStyle = context.fillStyle = color('accent')
  context.lineWidth = 1.5
  context.beginPath()
  context.roundRect(a, ROWS_TOP - 3, b - a, ROWS_HEIGHT + 6, 3)
  context.stroke()
  for (const x of [a, b]) {
    context.beginPath()
    context.roundRect(x - 2.5, ROWS_TOP + 11, 5, 15, 2.5)
    context.fill()
  }
}

function drawPlayhead(context: CanvasRenderingContext2D, x: number, time: number, scale: RibbonScale) {
  context.fillStyle = color('text')
  context.fillRect(x - 0.75, ROWS_TOP - 6, 1.5, ROWS_HEIGHT + 12)
  context.font = '600 10.5px Inter, system-ui, sans-serif'
  const isLong = scale.ribbon.to - scale.ribbon.from > 86_400
  const text = isLong ? `${day(time * 1000)}, ${clock(time * 1000)}` : clock(time * 1000)
  const width = context.measureText(text).width + 10
  const left = Math.min(Math.max(x - width / 2, 0), scale.width - width)
  context.fillStyle = color('accent')
  context.beginPath()
  context.roundRect(left, HEIGHT - 17, width, 16, 4)
  context.fill()
  context.fillStyle = color('bg')
  context.textAlign = 'center'
  context.fillText(text, left + width / 2, HEIGHT - 8.5)
}

export interface RibbonView {
  ribbon: Ribbon
  events: readonly HostEvent[]
  /** Visible range of the charts in Unix seconds. */
  bounds: [number, number]
  /** Shown instant in Unix seconds. */
  instant: number | null
  /** Whether the ribbon is that of a recording, which does not end now. */
  isRecording?: boolean
}

export function drawRibbon(context: CanvasRenderingContext2D, width: number, view: RibbonView) {
  const { ribbon, events, bounds, instant, isRecording = false } = view
  const scale = new RibbonScale(ribbon, width)
  const playhead = instant === null ? null : scale.x(instant)
  drawRows(context, ribbon, scale)
  drawEvents(context, events, scale)
  drawAxis(context, scale, playhead, endText(ribbon.to * 1000, isRecording))
  drawWindow(context, scale, bounds)
  if (playhead !== null) drawPlayhead(context, playhead, instant!, scale)
}

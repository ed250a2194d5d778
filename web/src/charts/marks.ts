// What charts draw beside their series: gaps with their reason, alert spans, thresholds, a ghost, a pinned time.
import type uPlot from 'uplot'
import { messageText } from '../i18n'
import { color } from '../lib/theme'
import type { Columns, Gap, Value } from '../live/columns'
import { hatch, type HatchPattern } from './canvas'

export interface Limit {
  value: number
  /** Token of the color. */
  color: string
  /** Words at the left of the line. */
  label?: string
}

/** Highlighted time range in Unix seconds, such as the duration of an alert. */
export interface Span {
  from: number
  to: number
  severity?: string
}

/** Event at a time in Unix seconds, such as a reboot. */
export interface Annotation {
  at: number
  label: string
}

/** Data of another time or host that is drawn behind the series. */
export interface Ghost {
  columns: Columns
  /** Seconds that are added to its times. */
  shift: number
  label: string
}

const MIN_REASON_PX = 60

/** Pattern of a gap by its reason; without a pattern, the area is flat. */
const PATTERNS: Record<string, HatchPattern> = { host_restarted: 'diagonal', agent_stopped: 'horizontal', data_lost: 'vertical' }

export const gapReason = (reason: string) => messageText(`charts.gap.${reason}`) ?? reason

/** Hatches a gap in the pattern of its reason. */
export function drawGap(context: CanvasRenderingContext2D, reason: string, box: { x: number; y: number; width: number; height: number }) {
  const pattern = PATTERNS[reason]
  context.fillStyle = color('surface')
  context.globalAlpha = 0.6
  context.fillRect(box.x, box.y, box.width, box.height)
  context.globalAlpha = 1
  if (pattern) return hatch(context, box, pattern)
  context.fillStyle = color('hatch')
  context.fillRect(box.x, box.y, box.width, box.height)
}

/** Position of times and values in device pixels, limited to the plot. */
function scalesOf(u: uPlot) {
  const { left, top, width, height } = u.bbox
  const clamp = (value: number, low: number, high: number) => Math.min(Math.max(value, low), high)
  return {
    bbox: u.bbox,
    x: (t: number) => clamp(u.valToPos(t, 'x', true), left, left + width),
    y: (value: number) => clamp(u.valToPos(value, 'y', true), top, top + height),
  }
}

/** Text on the color of the surface, readable over lines. */
function words(context: CanvasRenderingContext2D, text: string, x: number, y: number, token: string) {
  context.globalAlpha = 0.8
  context.fillStyle = color('surface')
  const height = 13 * devicePixelRatio
  context.fillRect(x - 3 * devicePixelRatio, y - height / 2, context.measureText(text).width + 6 * devicePixelRatio, height)
  context.globalAlpha = 1
  context.fillStyle = color(token)
  context.fillText(text, x, y)
}

function drawGaps(u: uPlot, gaps: readonly Gap[]) {
  const { bbox, x } = scalesOf(u)
  const { ctx } = u
  for (const gap of gaps) {
    const [from, to] = [x(gap.from), x(gap.to)]
    if (to <= from) continue
    drawGap(ctx, gap.reason, { x: from, y: bbox.top, width: to - from, height: bbox.height })
    const text = gapReason(gap.reason)
    ctx.textAlign = 'left'
    const width = ctx.measureText(text).width
    if (to - from >= Math.max(MIN_REASON_PX * devicePixelRatio, width + 8 * devicePixelRatio)) {
      words(ctx, text, (from + to - width) / 2, bbox.top + bbox.height / 2, 'text-2')
    }
  }
}

function drawSpans(u: uPlot, spans: readonly Span[]) {
  const { bbox, x } = scalesOf(u)
  const { ctx } = u
  for (const span of spans) {
    // Short ranges are at least two pixels wide.
    const width = Math.max(x(span.to) - x(span.from), 2 * devicePixelRatio)
    ctx.fillStyle = color(`${span.severity ?? 'critical'}-mark`)
    ctx.globalAlpha = 0.1
    ctx.fillRect(x(span.from), bbox.top, width, bbox.height)
    ctx.globalAlpha = 0.9
    ctx.fillRect(x(span.from), bbox.top - 3 * devicePixelRatio, width, 2 * devicePixelRatio)
    ctx.globalAlpha = 1
  }
}

/** Distance in pixels at which the cursor shows the text of an annotation. */
const NEAR_PX = 6

/** Whether the cursor is at an annotation. */
export const isNear = ({ at }: Annotation, u: uPlot) => Math.abs(u.valToPos(at, 'x') - (u.cursor.left ?? -Infinity)) <= NEAR_PX

/** Ticks at the top edge: a triangle with a short line. */
function drawAnnotations(u: uPlot, annotations: readonly Annotation[]) {
  const { ctx, bbox } = u
  ctx.fillStyle = color('text-2')
  for (const { at } of annotations) {
    const x = u.valToPos(at, 'x', true)
    if (x < bbox.left || x > bbox.left + bbox.width) continue
    const half = 4 * devicePixelRatio
    ctx.beginPath()
    ctx.moveTo(x - half, bbox.top - half)
    ctx.lineTo(x + half, bbox.top - half)
    ctx.lineTo(x, bbox.top + half)
    ctx.fill()
    ctx.globalAlpha = 0.5
    ctx.fillRect(Math.round(x), bbox.top, devicePixelRatio, bbox.height)
    ctx.globalAlpha = 1
  }
}

function dashed(ctx: CanvasRenderingContext2D, token: string, dash: number[], draw: () => void) {
  ctx.strokeStyle = color(token)
  ctx.lineWidth = devicePixelRatio
  ctx.setLineDash(dash.map((length) => length * devicePixelRatio))
  ctx.beginPath()
  draw()
  ctx.stroke()
  ctx.setLineDash([])
}

function drawLimits(u: uPlot, limits: readonly Limit[]) {
  const { bbox, y } = scalesOf(u)
  const { ctx } = u
  for (const limit of limits) {
    const at = Math.round(u.valToPos(limit.value, 'y', true))
    if (at < bbox.top || at > bbox.top + bbox.height) continue
    dashed(ctx, limit.color, [5, 4], () => {
      ctx.moveTo(bbox.left, y(limit.value))
      ctx.lineTo(bbox.left + bbox.width, y(limit.value))
    })
    if (!limit.label) continue
    const below = at - bbox.top < 16 * devicePixelRatio
    ctx.textAlign = 'left'
    words(ctx, limit.label, bbox.left + 6 * devicePixelRatio, at + (below ? 9 : -8) * devicePixelRatio, limit.color)
  }
}

/** Lines of a ghost: values by time, with the color of each. */
export interface GhostLine {
  values: readonly Value[]
  color: string
}

function drawGhost(u: uPlot, ghost: Ghost, lines: readonly GhostLine[]) {
  const { bbox } = u
  const { ctx } = u
  ctx.save()
  ctx.beginPath()
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height)
  ctx.clip()
  ctx.globalAlpha = 0.8
  for (const line of lines) {
    dashed(ctx, line.color, [3, 3], () => {
      let isDown = false
      ghost.columns.times.forEach((time, row) => {
        const value = line.values[row]
        const previous = ghost.columns.times[row - 1]
        const inGap = previous !== undefined && ghost.columns.gaps?.some((gap) => gap.from >= previous && gap.to <= time)
        if (value === null || value === undefined || inGap) isDown = false
        if (value === null || value === undefined) return
        const [x, y] = [u.valToPos(time + ghost.shift, 'x', true), u.valToPos(value, 'y', true)]
        if (isDown) ctx.lineTo(x, y)
        else ctx.moveTo(x, y)
        isDown = true
      })
    })
  }
  ctx.restore()
}

export interface Marks {
  gaps: readonly Gap[]
  spans: readonly Span[]
  limits: readonly Limit[]
  ghost?: Ghost
  ghostLines: readonly GhostLine[]
  annotations: readonly Annotation[]
  /** Pinned time in Unix seconds, if it is visible. */
  mark: number | null
}

/** Draws all marks over the plot. */
export function drawMarks(u: uPlot, marks: Marks) {
  const { ctx } = u
  ctx.save()
  ctx.font = `${10.5 * devicePixelRatio}px Inter, system-ui, sans-serif`
  ctx.textBaseline = 'middle'
  drawGaps(u, marks.gaps)
  drawSpans(u, marks.spans)
  if (marks.ghost) drawGhost(u, marks.ghost, marks.ghostLines)
  drawLimits(u, marks.limits)
  drawAnnotations(u, marks.annotations)
  if (marks.mark !== null) {
    const { bbox, x } = scalesOf(u)
    ctx.globalAlpha = 0.9
    ctx.fillStyle = color('accent')
    ctx.fillRect(Math.round(x(marks.mark)), bbox.top, Math.max(1, devicePixelRatio), bbox.height)
  }
  ctx.restore()
}

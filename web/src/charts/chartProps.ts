// Properties that charts and their dialog share.
import type { Columns } from '../live/columns'
import type { Unit } from '../lib/format'
import type { Annotation, Ghost, Limit, Span } from './marks'

export interface Series {
  metric: string
  instance?: string
  label: string
  color: string
  /** Whether the area below the line is filled. */
  area?: boolean
}

/** Visible time range: the newest `window` seconds, or a fixed range in Unix seconds. */
export interface View {
  window: number
  fixed: { from: number; to: number } | null
  /** Pinned time, drawn as a vertical line in every chart. */
  mark?: number | null
}

export interface ChartProps {
  title: string
  columns: Columns
  version: number
  series: Series[]
  unit: Unit
  view: View
  stacked?: boolean
  /** Metric whose maximum per point is drawn over a stack, because averages hide spikes. */
  peak?: string
  /** Upper end of the y axis, if the metric has one. */
  max?: number
  hint?: string
  /** Short text after the title, such as the size of the resource. */
  note?: string
  /** Draws the second series downwards: what leaves below what comes in. */
  mirrored?: boolean
  /** Thresholds, drawn as horizontal lines. */
  limits?: Limit[]
  spans?: Span[]
  /** Events at a time, such as a reboot. */
  annotations?: readonly Annotation[]
  ghost?: Ghost
  /** Height of the plot in pixels; 168 by default. */
  height?: number
}

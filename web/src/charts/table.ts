// Points of a chart as rows of a table, newest first, with the gaps and events between them.
import type { Columns, Gap, Value } from '../live/columns'
import { gapsBetween } from './axes'
import type { Annotation } from './marks'

export interface ChartRow {
  /** Unix seconds; of a gap, its start. */
  at: number
  values: Value[]
  /** Reason of a gap, and its end in Unix seconds. */
  gap?: Gap
  /** Text of an event. */
  text?: string
}

/** Rows of a table at most; the newest are shown. */
export const MAX_TABLE_ROWS = 500

export interface ChartTableData {
  rows: ChartRow[]
  /** Number of points in the range, those included that are not shown. */
  total: number
}

/** Points of the series within a range of Unix seconds. */
export function tableRows(
  columns: Columns,
  series: readonly { metric: string; instance?: string }[],
  [from, to]: [number, number],
  annotations: readonly Annotation[] = [],
): ChartTableData {
  const { times } = columns
  const isShown = (at: number) => at >= from && at <= to
  const indices = Array.from(times.keys()).filter((index) => isShown(times[index]!))
  const first = indices[Math.max(indices.length - MAX_TABLE_ROWS, 0)]
  const start = first === undefined ? from : times[first]!
  const values = series.map(({ metric, instance }) => columns.get(metric, instance))
  const points = indices
    .slice(-MAX_TABLE_ROWS)
    .map((index): ChartRow => ({ at: times[index]!, values: values.map((list) => list[index] ?? null) }))
  const gaps =
    columns.gaps ?? gapsBetween(times, columns.steps, 1, times.length - 1).map(([from, to]): Gap => ({ from, to, reason: 'unknown' }))
  const shownGaps = gaps.filter((gap) => gap.to > start && gap.from < to).map((gap): ChartRow => ({ at: gap.from, values: [], gap }))
  const events = annotations.filter(({ at }) => at >= start && at <= to).map(({ at, label }): ChartRow => ({ at, values: [], text: label }))
  // A gap is above the last point before it.
  const rows = [...shownGaps, ...events, ...points].sort((a, b) => b.at - a.at)
  return { rows, total: indices.length }
}

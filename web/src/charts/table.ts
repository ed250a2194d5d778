// Points of a chart as rows of a table, newest first, with the gaps and events between them.
import type { Columns, Gap, Value } from '../live/columns'
import { gapsBetween } from './axes'
import type { Annotation, Ghost } from './marks'

type Named = { metric: string; instance?: string }

export interface ChartRow {
  /** Unix seconds; of a gap, its start. */
  at: number
  /** Of each series, followed by that of the ghost if there is one. */
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

/** Values of a ghost at times of the chart; null further than a step from its points. */
export function ghostValues({ columns, shift }: Ghost, series: Named, at: readonly number[]): Value[] {
  const { times } = columns
  const values = columns.get(series.metric, series.instance)
  let row = 0
  return at.map((time) => {
    const target = time - shift
    while (row + 1 < times.length && Math.abs(times[row + 1]! - target) <= Math.abs(times[row]! - target)) row++
    const step = Math.max(columns.steps[row] ?? 0, row > 0 ? times[row]! - times[row - 1]! : 0)
    const point = times[row]
    return point !== undefined && Math.abs(point - target) <= step ? (values[row] ?? null) : null
  })
}

/** Points of the series within a range of Unix seconds. */
export function tableRows(
  columns: Columns,
  series: readonly Named[],
  [from, to]: [number, number],
  annotations: readonly Annotation[] = [],
  ghost?: Ghost,
): ChartTableData {
  const { times } = columns
  const isShown = (at: number) => at >= from && at <= to
  const indices = Array.from(times.keys()).filter((index) => isShown(times[index]!))
  const first = indices[Math.max(indices.length - MAX_TABLE_ROWS, 0)]
  const start = first === undefined ? from : times[first]!
  const values = series.map(({ metric, instance }) => columns.get(metric, instance))
  const shown = indices.slice(-MAX_TABLE_ROWS)
  const shownTimes = shown.map((index) => times[index]!)
  const others = ghost ? series.map((each) => ghostValues(ghost, each, shownTimes)) : []
  const points = shown.map((index, row): ChartRow => {
    const own = values.map((list) => list[index] ?? null)
    return { at: times[index]!, values: ghost ? own.flatMap((value, at) => [value, others[at]![row]!]) : own }
  })
  const gaps =
    columns.gaps ?? gapsBetween(times, columns.steps, 1, times.length - 1).map(([from, to]): Gap => ({ from, to, reason: 'unknown' }))
  const shownGaps = gaps.filter((gap) => gap.to > start && gap.from < to).map((gap): ChartRow => ({ at: gap.from, values: [], gap }))
  const events = annotations.filter(({ at }) => at >= start && at <= to).map(({ at, label }): ChartRow => ({ at, values: [], text: label }))
  // A gap is above the last point before it.
  const rows = [...shownGaps, ...events, ...points].sort((a, b) => b.at - a.at)
  return { rows, total: indices.length }
}

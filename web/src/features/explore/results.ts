// Answer of the hub as charts: columns, labels, colors, statistics.
import type { QueryResponse, QuerySeries, QuerySet } from '../../api/types'
import type { Series } from '../../charts/chartProps'
import { csvTime, toCsv } from '../../csv'
import type { Unit } from '../../lib/format'
import { type Columns, type Gap, keyOf, type Value } from '../../live/columns'
import type { Form, Split } from './state'
import './texts'
import { t } from '../../i18n'

/** Colors of the series of a chart; further series share one. */
const PALETTE = ['c1', 'c2', 'c3', 'c4', 'c5', 'c6', 'c7', 'c8']
const OTHER_COLOR = 'c-rest'
/** Charts of a page at once. */
const MAX_CHARTS = 24
/** Lines up to which the range between minimum and maximum is drawn. */
const MAX_BANDS = 3

/** Line of the answer with its text and color. */
export interface Line {
  /** Metric or formula, and the labels of the group. */
  key: string
  label: string
  /** Metric with its instance, or the formula. */
  detail: string
  color: string
  unit: Unit
  series: QuerySeries
}

export interface ExploreChart {
  key: string
  /** Ids of the queries in the chart. */
  ids: string[]
  title: string
  subtitle: string
  unit: Unit
  lines: Line[]
  columns: Columns
}

/** Columns of the answer on its time grid. */
class GridColumns implements Columns {
  readonly times: number[]
  readonly steps: number[]
  readonly gaps: Gap[]
  private readonly byKey: Map<string, QuerySeries>
  private readonly empty: Value[]

  constructor(
    answer: QueryResponse,
    private readonly lines: readonly Line[],
  ) {
    const step = answer.step_ms / 1000
    this.times = Array.from({ length: answer.points }, (_, at) => answer.start_ms / 1000 + at * step)
    this.steps = this.times.map(() => step)
    this.empty = this.times.map(() => null)
    this.byKey = new Map(lines.map((line) => [keyOf(line.series.query, line.key), line.series]))
    this.gaps = commonGaps(lines, this.times, step)
  }

  get(metric: string, instance = ''): Value[] {
    return this.byKey.get(keyOf(metric, instance))?.v ?? this.empty
  }

  band(metric: string, instance = ''): { min: Value[]; max: Value[] } | null {
    const series = this.lines.length > MAX_BANDS ? undefined : this.byKey.get(keyOf(metric, instance))
    return series?.min && series.max ? { min: series.min, max: series.max } : null
  }

  has(metric: string, instance = ''): boolean {
    return this.byKey.has(keyOf(metric, instance))
  }

  last(metric: string, instance = ''): Value {
    return statistics(this.get(metric, instance)).last
  }

  metrics(): string[] {
    return [...new Set(this.lines.map(({ series }) => series.query))]
  }

  instances(metric: string): string[] {
    return this.lines.filter(({ series }) => series.query === metric).map(({ key }) => key)
  }
}

/** Time ranges in which no line has a value, between points that have values. */
export function commonGaps(lines: readonly { series: { v: Value[] } }[], times: readonly number[], step: number): Gap[] {
  const gaps: Gap[] = []
  let last = -1
  for (let at = 0; at < times.length; at++) {
    if (!lines.some(({ series }) => series.v[at] != null)) continue
    if (last >= 0 && at - last > 1) gaps.push({ from: times[last]! + step, to: times[at]!, reason: 'unknown' })
    last = at
  }
  return gaps
}

export interface Statistics {
  min: Value
  average: Value
  max: Value
  last: Value
}

/** Statistics of the values of a line: extremes of the samples if they are known. */
export function statistics(values: readonly Value[], low: readonly Value[] = values, high: readonly Value[] = values): Statistics {
  const present = (list: readonly Value[]) => list.filter((value) => value !== null)
  const found = present(values)
  if (!found.length) return { min: null, average: null, max: null, last: null }
  return {
    min: present(low).reduce((least, value) => Math.min(least, value), Infinity),
    average: found.reduce((sum, value) => sum + value, 0) / found.length,
    max: present(high).reduce((most, value) => Math.max(most, value), -Infinity),
    last: found.at(-1)!,
  }
}

/** Text of the group of a series. */
export function groupLabel(series: QuerySeries): string {
  const { host, instance, ...tags } = series.labels
  const tag = Object.entries(tags).map(([key, value]) => value || t('explore.withoutTag', { key }))
  return [host, instance, ...tag].filter((text) => text).join(' · ') || t('explore.all')
}

/** Colors of groups, kept over requests and charts as long as a group is shown. */
export class ColorMap {
  private colors = new Map<string, string>()

  /**
   * Gives each name of the charts a color. Names of a chart differ as long as there are colors; those of groups that are no
   * longer shown are free again.
   */
  assign(charts: readonly (readonly string[])[]) {
    const former = this.colors
    const names = new Set(charts.flat())
    this.colors = new Map([...names].flatMap((name) => (former.has(name) ? [[name, former.get(name)!] as const] : [])))
    for (const name of names) {
      const current = this.colors.get(name)
      const beside = new Set(
        charts
          .filter((chart) => chart.includes(name))
          .flat()
          .filter((other) => other !== name)
          .map((other) => this.colors.get(other)),
      )
      if (current && current !== OTHER_COLOR && !beside.has(current)) continue
      const used = new Set(this.colors.values())
      const free = PALETTE.filter((color) => !beside.has(color))
      this.colors.set(name, free.find((color) => !used.has(color)) ?? free[0] ?? OTHER_COLOR)
    }
  }

  of(name: string): string {
    return this.colors.get(name) ?? OTHER_COLOR
  }
}

/** Name of the color of a line: charts by metric show the groups alike, charts by host the metrics. */
function colorName({ query, metric }: QuerySeries, label: string, split: Split): string {
  if (split === 'metric') return label
  return split === 'host' ? `${query} ${metric ?? ''}` : `${query} ${metric ?? ''} ${label}`
}

/** Lines of the answer without their colors. */
function toLines(answer: QueryResponse, set: QuerySet): Line[] {
  const formulas = new Map((set.formulas ?? []).map(({ id, expression }) => [id, expression]))
  return answer.series.map((series) => {
    const label = groupLabel(series)
    const detail = series.metric ?? formulas.get(series.query) ?? ''
    const key = `${series.host ?? ''}|${series.metric ?? ''}|${label}`.replaceAll('|', ' ')
    return { key, label, detail, color: OTHER_COLOR, unit: (series.unit ?? 'count') as Unit, series }
  })
}

function subtitleOf(line: Line, set: QuerySet): string {
  const unit = t(`explore.units.${line.unit as 'count'}`)
  const query = set.queries.find(({ id }) => id === line.series.query)
  if (!query) return unit
  const [kind, key] = (query.by ?? 'host').split(':') as ['host', string | undefined]
  const by = key ? t('explore.groupingWords.tag', { key }) : t(`explore.groupingWords.${kind}`)
  return t('explore.subtitle', { unit, aggregate: t(`explore.aggregates.${query.aggregate ?? 'mean'}`).toLowerCase(), by })
}

/** Lines by chart, in the order of the answer. */
export function toCharts(answer: QueryResponse, set: QuerySet, split: Split, colors: ColorMap): { charts: ExploreChart[]; left: number } {
  const groups = new Map<string, Line[]>()
  for (const line of toLines(answer, set)) {
    const name = split === 'metric' ? `${line.series.query} ${line.series.metric ?? ''}` : split === 'host' ? line.label : ''
    // Values of different units have different axes.
    const key = `${name} ${line.unit}`
    groups.set(key, [...(groups.get(key) ?? []), line])
  }
  const nameOf = ({ series, label }: Line) => colorName(series, label, split)
  colors.assign([...groups.values()].map((lines) => lines.map(nameOf)))
  const charts = [...groups].slice(0, MAX_CHARTS).map(([key, list]): ExploreChart => {
    const lines = list.map((line) => ({ ...line, color: colors.of(nameOf(line)) }))
    const details = [...new Set(lines.map(({ detail }) => detail))]
    const [first] = lines as [Line, ...Line[]]
    return {
      key,
      ids: [...new Set(lines.map(({ series }) => series.query))],
      title: split === 'host' ? first.label : details.join(', '),
      subtitle:
        split === 'metric' ? subtitleOf(first, set) : split === 'host' ? details.join(', ') : t(`explore.units.${first.unit as 'count'}`),
      unit: first.unit,
      lines,
      columns: new GridColumns(answer, lines),
    }
  })
  return { charts, left: Math.max(0, groups.size - MAX_CHARTS) }
}

/** Series of a chart for `TimeChart`. */
export function chartSeries(chart: ExploreChart, form: Form, split: Split): Series[] {
  return chart.lines.map((line) => ({
    metric: line.series.query,
    instance: line.key,
    label: split === 'metric' ? line.label : split === 'host' ? line.detail : `${line.label} ${line.detail}`,
    color: line.color,
    area: form === 'line' && chart.lines.length === 1,
  }))
}

/** Values of all series as CSV, one row per point. */
export function answerToCsv(answer: QueryResponse): string {
  const header = answer.series.map((series) => [series.query, series.metric, groupLabel(series)].filter((text) => text).join(' '))
  const rows = Array.from({ length: answer.points }, (_, at) => [
    csvTime(answer.start_ms + at * answer.step_ms),
    ...answer.series.map((series) => series.v[at]),
  ])
  return toCsv(['time', ...header], rows)
}

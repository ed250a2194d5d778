// State of the Explore page in its address: queries and formulas as JSON in `q`, charts in `split` and `form`.
import type { LocationQuery, LocationQueryRaw } from 'vue-router'
import type { FormulaQuery, QuerySet, SeriesQuery, ViewChart } from '../../api/types'

export type Split = NonNullable<ViewChart['split']>
export type Form = NonNullable<ViewChart['form']>

export interface ExploreState {
  set: QuerySet
  split: Split
  form: Form
}

export const SPLITS: readonly Split[] = ['overlay', 'metric', 'host']
export const FORMS: readonly Form[] = ['line', 'stack', 'heat_map']
export const AGGREGATES = ['mean', 'sum', 'min', 'max', 'p95'] as const
/** Metric of an empty page. */
export const DEFAULT_METRIC = 'cpu.usage'
const DEFAULT_SPLIT: Split = 'metric'
const DEFAULT_FORM: Form = 'line'
/** Limits of the hub. */
export const MAX_QUERIES = 10
export const MAX_FORMULAS = 5

export const newQuery = (id: string, metric: string): SeriesQuery => ({ id, metric, hosts: {}, aggregate: 'mean', by: 'host', limit: 8 })

/** First unused id: A to Z for queries, F1, F2… for formulas. */
export function freeId(set: QuerySet, kind: 'query' | 'formula'): string {
  const used = new Set([...set.queries, ...(set.formulas ?? [])].map(({ id }) => id))
  const candidates = kind === 'query' ? [...'ABCDEGHIJKLMNOPQ'] : Array.from({ length: 20 }, (_, at) => `F${at + 1}`)
  return candidates.find((id) => !used.has(id))!
}

/** Query of another metric with the hosts, aggregation, grouping and limit of the last query. */
export function nextQuery({ queries, formulas }: QuerySet, metric: string, hasInstances = true): SeriesQuery {
  const id = freeId({ queries, formulas }, 'query')
  const last = queries.at(-1)
  if (!last) return newQuery(id, metric)
  const { hosts, aggregate, limit } = last
  // A metric of the host itself has no instances to group by.
  const by = !hasInstances && (last.by === 'instance' || last.by === 'series') ? 'host' : last.by
  return { id, metric, hosts, aggregate, by, ...(limit === undefined ? {} : { limit }) }
}

/** Whether a query is the one of an empty page, or repeats the one before, as a query that was just added does. */
function isUntouched({ queries }: QuerySet, at: number, isView: boolean): boolean {
  const [query, before] = [queries[at]!, queries[at - 1]]
  const first = before ? { ...before, id: query.id } : isView ? null : newQuery(query.id, DEFAULT_METRIC)
  return JSON.stringify(normalized({ queries: [query] })) === JSON.stringify(first && normalized({ queries: [first] }))
}

/** Queries with a chosen metric: in place of that of an untouched last query, or in a query of its own. */
export function withMetric(set: QuerySet, metric: string, { isView = false, hasInstances = true } = {}): QuerySet {
  const last = set.queries.length - 1
  if (last >= 0 && isUntouched(set, last, isView)) {
    return { ...set, queries: set.queries.map((query, at) => (at === last ? { ...query, metric } : query)) }
  }
  if (set.queries.length >= MAX_QUERIES) return set
  return { ...set, queries: [...set.queries, nextQuery(set, metric, hasInstances)] }
}

const isText = (value: unknown): value is string => typeof value === 'string'
const texts = (value: unknown) => (Array.isArray(value) ? value.filter(isText) : [])
const limitOf = (value: unknown) => (typeof value === 'number' && Number.isInteger(value) && value > 0 ? { limit: value } : {})

function parseQuery(value: unknown): SeriesQuery | null {
  const query = (value ?? {}) as Record<string, unknown>
  if (!isText(query.id) || !isText(query.metric)) return null
  const hosts = (query.hosts ?? {}) as Record<string, unknown>
  const lists = Object.entries({ hosts: texts(hosts.hosts), tags: texts(hosts.tags), exclude_tags: texts(hosts.exclude_tags) })
  return {
    id: query.id,
    metric: query.metric,
    ...(isText(query.instance) && query.instance ? { instance: query.instance } : {}),
    hosts: Object.fromEntries(lists.filter(([, list]) => list.length)),
    aggregate: AGGREGATES.find((name) => name === query.aggregate) ?? 'mean',
    by: isText(query.by) ? query.by : 'host',
    ...limitOf(query.limit),
    ...(query.hidden === true ? { hidden: true } : {}),
  }
}

function parseFormula(value: unknown): FormulaQuery | null {
  const formula = (value ?? {}) as Record<string, unknown>
  if (!isText(formula.id) || !isText(formula.expression)) return null
  const hidden = formula.hidden === true ? { hidden: true } : {}
  return { id: formula.id, expression: formula.expression, ...limitOf(formula.limit), ...hidden }
}

/** Queries of a JSON text; null if it contains none. Unknown and invalid parts are ignored. */
export function parseSet(text: string): QuerySet | null {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return null
  }
  const { queries, formulas } = (value ?? {}) as Record<string, unknown>
  if (!Array.isArray(queries)) return null
  const parsed = { queries: queries.flatMap((query) => parseQuery(query) ?? []).slice(0, MAX_QUERIES) }
  const found = Array.isArray(formulas) ? formulas.flatMap((formula) => parseFormula(formula) ?? []).slice(0, MAX_FORMULAS) : []
  return found.length ? { ...parsed, formulas: found } : parsed
}

/** Same queries with the same fields, so that their JSON can be compared. */
export const normalized = (set: QuerySet): QuerySet => parseSet(JSON.stringify(set)) ?? { queries: [] }

/** State of an address; `fallback` is that of the open view. */
export function fromAddress(query: LocationQuery, fallback: ExploreState): ExploreState {
  const set = isText(query.q) ? parseSet(query.q) : null
  return {
    set: set ?? fallback.set,
    split: SPLITS.find((split) => split === query.split) ?? fallback.split,
    form: FORMS.find((form) => form === query.form) ?? fallback.form,
  }
}

/** Parameters of a state; those that equal the fallback are left out. Other parameters are kept. */
export function toAddress(state: ExploreState, fallback: ExploreState, others: LocationQuery = {}): LocationQueryRaw {
  const [set, saved] = [state.set, fallback.set].map((set) => JSON.stringify(normalized(set)))
  return {
    ...others,
    q: set === saved ? undefined : set,
    split: state.split === fallback.split ? undefined : state.split,
    form: state.form === fallback.form ? undefined : state.form,
  }
}

/** State of a page without an address or view. */
export const defaultState = (): ExploreState => ({
  set: { queries: [newQuery('A', DEFAULT_METRIC)] },
  split: DEFAULT_SPLIT,
  form: DEFAULT_FORM,
})

/** State of a saved view. */
export const viewState = (view: { query: QuerySet; chart: ViewChart }): ExploreState => ({
  set: normalized(view.query),
  split: view.chart.split ?? DEFAULT_SPLIT,
  form: view.chart.form ?? DEFAULT_FORM,
})

// Courses of hosts before a past time, cut from answers that cover some minutes around it: while a replay plays, few
// requests are necessary.
import type { QueryRequest, QueryResponse } from '../../api/types'
import { type Course, COURSE_POINTS, COURSE_STEP_MS, emptyCourse } from './course'

/** Length of a course. */
const COURSE_MS = COURSE_POINTS * COURSE_STEP_MS
/** Longest step whose values are a course; longer steps are a single mean. */
const MAX_STEP_MS = 60_000

/** Largest number of series of a query. */
const MAX_HOSTS = 200

const METRICS = { cpu: 'cpu.usage', rx: 'network.total.rx_bytes' } as const
type CourseKey = keyof typeof METRICS
const KEYS = Object.keys(METRICS) as CourseKey[]

/** Points of a host on the grid of an answer. */
interface PastPoints {
  startMs: number
  stepMs: number
  columns: Partial<Record<CourseKey, readonly (number | null)[]>>
}

export class PastCourses {
  /** Range that is loaded; the end is exclusive. */
  private range = { from: 0, to: 0 }
  /** Hosts that are loaded; null for a host without data. */
  private points = new Map<string, PastPoints | null>()

  /** Range that contains the courses before a time: the same for some minutes. */
  private rangeOf(atMs: number, nowMs: number) {
    const start = Math.floor(atMs / COURSE_MS) * COURSE_MS
    return { from: start - COURSE_MS, to: Math.min(start + COURSE_MS, nowMs) }
  }

  /** Request for the courses of hosts that are missing at a time; null if none is. */
  missing(ids: readonly string[], atMs: number, nowMs: number): QueryRequest | null {
    const range = this.rangeOf(atMs, nowMs)
    const isLoaded = range.from === this.range.from && atMs < this.range.to
    const { from, to } = isLoaded ? this.range : range
    const hosts = (isLoaded ? ids.filter((id) => !this.points.has(id)) : ids).slice(0, MAX_HOSTS)
    if (!hosts.length || to <= from) return null
    return {
      from: String(from),
      to: String(to),
      points: Math.ceil((to - from) / COURSE_STEP_MS) + 1,
      queries: KEYS.map((id) => ({ id, metric: METRICS[id], hosts: { hosts }, by: 'host', limit: hosts.length })),
      formulas: [],
    }
  }

  /** Takes over the answer to a request. */
  add(request: QueryRequest, { start_ms: startMs, step_ms: stepMs, series }: QueryResponse) {
    const [from, to] = [Number(request.from), Number(request.to)]
    if (from !== this.range.from || to !== this.range.to) this.points.clear()
    this.range = { from, to }
    for (const id of request.queries[0]?.hosts?.hosts ?? []) this.points.set(id, null)
    if (stepMs > MAX_STEP_MS) return
    for (const { host, query, v } of series) {
      if (!host) continue
      let points = this.points.get(host)
      if (!points) this.points.set(host, (points = { startMs, stepMs, columns: {} }))
      points.columns[query as CourseKey] = v
    }
  }

  clear() {
    this.range = { from: 0, to: 0 }
    this.points.clear()
  }

  /** Course of a host until a time; NaN without data, and where nothing is loaded. */
  courseBefore(id: string, atMs: number): Course {
    const course = emptyCourse()
    const points = this.points.get(id)
    if (!points) return course
    for (const key of KEYS) {
      const column = points.columns[key] ?? []
      for (let point = 0; point < COURSE_POINTS; point++) {
        const timeMs = atMs - (COURSE_POINTS - 1 - point) * COURSE_STEP_MS
        course[key][point] = column[Math.floor((timeMs - points.startMs) / points.stepMs)] ?? NaN
      }
    }
    return course
  }
}

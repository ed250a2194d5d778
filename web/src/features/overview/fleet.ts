// Values of all visible hosts, the newest or those of a past time: plain columns outside Vue's reactivity, and the course of
// the minutes before.
import type { OverviewHost, OverviewResponse, OverviewValues } from '../../api/types'
import { type Course, COURSE_POINTS, COURSE_STEP_MS, emptyCourse } from './course'
import type { PastCourses } from './pastCourses'

const EMPTY_VALUES: OverviewValues = {
  status: [],
  last_seen_ms: [],
  cpu: [],
  memory: [],
  disk: [],
  disk_mount: [],
  rx: [],
  tx: [],
  load: [],
  pressure: [],
  uptime_s: [],
  critical: [],
  warning: [],
}

export class Fleet {
  hosts: readonly OverviewHost[] = []
  values: OverviewValues = EMPTY_VALUES
  revision = ''
  nowMs = 0
  /** Past time of the values in Unix milliseconds; null for the newest. */
  replayMs: number | null = null
  /** Courses before past times, which are loaded for the visible hosts only; null before the first replay. */
  past: PastCourses | null = null
  private courses = new Map<string, Course>()
  /** Number of the step that the last point of all courses covers. */
  private step = 0

  /** Takes over an answer of the hub. */
  update(answer: OverviewResponse) {
    if (answer.hosts) {
      this.hosts = answer.hosts
      const present = new Set(answer.hosts.map(({ id }) => id))
      for (const id of this.courses.keys()) if (!present.has(id)) this.courses.delete(id)
    }
    this.values = answer.values
    this.revision = answer.revision
    this.replayMs = answer.replay?.at_ms ?? null
    this.nowMs = this.replayMs ?? answer.now_ms
    if (this.replayMs !== null) {
      this.courses.clear()
      this.step = 0
      return
    }
    this.past?.clear()
    if (answer.recent) {
      this.step = 0
      this.fill(answer.recent)
    }
    this.append(this.nowMs)
  }

  /** Course of a host until the time of the values. */
  course(id: string): Course {
    if (this.replayMs !== null) return this.past?.courseBefore(id, this.replayMs) ?? emptyCourse()
    let course = this.courses.get(id)
    if (!course) this.courses.set(id, (course = emptyCourse()))
    return course
  }

  private fill(recent: NonNullable<OverviewResponse['recent']>) {
    const copy = (target: Float32Array, points: readonly (number | null)[] = []) => {
      const last = points.slice(-COURSE_POINTS)
      last.forEach((value, at) => (target[COURSE_POINTS - last.length + at] = value ?? NaN))
    }
    this.hosts.forEach(({ id }, index) => {
      const course = this.course(id)
      copy(course.cpu, recent.cpu[index])
      copy(course.rx, recent.rx[index])
    })
  }

  /** Writes the newest values into the last point; a new step moves the course by one point. */
  private append(nowMs: number) {
    const step = Math.floor(nowMs / COURSE_STEP_MS)
    const moved = this.step === 0 ? 0 : Math.min(step - this.step, COURSE_POINTS)
    this.step = step
    this.hosts.forEach(({ id }, index) => {
      const course = this.course(id)
      for (const [points, value] of [
        [course.cpu, this.values.cpu[index]],
        [course.rx, this.values.rx[index]],
      ] as const) {
        if (moved > 0) {
          points.copyWithin(0, moved)
          points.fill(NaN, COURSE_POINTS - moved)
        }
        points[COURSE_POINTS - 1] = value ?? NaN
      }
    })
  }
}

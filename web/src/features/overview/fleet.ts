// Newest values of all visible hosts: plain columns outside Vue's reactivity, and the course of the last minutes.
import type { OverviewHost, OverviewResponse, OverviewValues } from '../../api/types'

/** Points of the recent course of a host. */
export const COURSE_POINTS = 30
/** Width of a point in milliseconds, as in the answer of the hub. */
export const COURSE_STEP_MS = 10_000

/** CPU usage and received bytes of the last minutes; NaN without data. */
export interface Course {
  cpu: Float32Array
  rx: Float32Array
}

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

function emptyCourse(): Course {
  return { cpu: new Float32Array(COURSE_POINTS).fill(NaN), rx: new Float32Array(COURSE_POINTS).fill(NaN) }
}

export class Fleet {
  hosts: readonly OverviewHost[] = []
  values: OverviewValues = EMPTY_VALUES
  revision = ''
  nowMs = 0
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
    this.nowMs = answer.replay?.at_ms ?? answer.now_ms
    if (answer.replay) this.courses.clear()
    if (answer.replay || answer.recent) this.step = 0
    if (answer.recent) this.fill(answer.recent)
    this.append(this.nowMs)
  }

  course(id: string): Course {
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

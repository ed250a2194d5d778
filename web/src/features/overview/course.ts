// Course of a host over the last minutes.

/** Points of the recent course of a host. */
export const COURSE_POINTS = 30
/** Width of a point in milliseconds, as in the answer of the hub. */
export const COURSE_STEP_MS = 10_000

/** CPU usage and received bytes of the last minutes; NaN without data. */
export interface Course {
  cpu: Float32Array
  rx: Float32Array
}

export function emptyCourse(): Course {
  return { cpu: new Float32Array(COURSE_POINTS).fill(NaN), rx: new Float32Array(COURSE_POINTS).fill(NaN) }
}

// Levels of utilizations: where a number is drawn as warning or critical.

export type Level = '' | 'warning' | 'critical'

export type Thresholds = readonly [warning: number, critical: number]

export const CPU_LEVELS: Thresholds = [80, 90]
export const MEMORY_LEVELS: Thresholds = [85, 95]
export const DISK_LEVELS: Thresholds = [85, 95]
/** Load per core. */
export const LOAD_LEVELS: Thresholds = [1, 2]
export const PRESSURE_LEVELS: Thresholds = [20, 50]

export function levelOf(value: number | null | undefined, [warning, critical]: Thresholds): Level {
  if (value === null || value === undefined) return ''
  return value >= critical ? 'critical' : value >= warning ? 'warning' : ''
}

/** Upper bounds of the color steps `l0` to `l5`; everything above is `l6`. */
const STEPS = [15, 35, 55, 72, 82, 91]

/** Color token of a percentage in a map. */
export function levelColor(percent: number): string {
  const step = STEPS.findIndex((bound) => percent < bound)
  return `l${step < 0 ? STEPS.length : step}`
}

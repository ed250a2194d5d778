// Checks of JSON from outside: each value has the expected type and a bounded length.
import { invalid } from './errors'

export type Check = (value: unknown, path: string) => void

const fail = (path: string): never => {
  throw invalid(path)
}

export const text =
  (maxLength: number): Check =>
  (value, path) => {
    if (typeof value !== 'string' || value.length > maxLength) fail(path)
  }
export const number: Check = (value, path) => {
  if (typeof value !== 'number' || !Number.isFinite(value)) fail(path)
}
/** Unix milliseconds that `Date` can represent. */
export const time: Check = (value, path) => {
  if (typeof value !== 'number' || !Number.isInteger(value) || Math.abs(value) > 8.64e15) fail(path)
}
export const count =
  (max: number): Check =>
  (value, path) => {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > max) fail(path)
  }
export const flag: Check = (value, path) => {
  if (typeof value !== 'boolean') fail(path)
}
export const choice =
  (...values: readonly string[]): Check =>
  (value, path) => {
    if (typeof value !== 'string' || !values.includes(value)) fail(path)
  }
/** Value that may be absent or null. */
export const optional =
  (check: Check): Check =>
  (value, path) => {
    if (value !== null && value !== undefined) check(value, path)
  }
export const list =
  (check: Check, max: number): Check =>
  (value, path) => {
    if (!Array.isArray(value) || value.length > max) return fail(path)
    value.forEach((item, index) => check(item, `${path}[${index}]`))
  }
export const tuple =
  (...checks: readonly Check[]): Check =>
  (value, path) => {
    if (!Array.isArray(value) || value.length !== checks.length) return fail(path)
    checks.forEach((check, index) => check(value[index], `${path}[${index}]`))
  }
const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)
/** Object with these fields; others are ignored. */
export const object =
  (fields: Readonly<Record<string, Check>>): Check =>
  (value, path) => {
    if (!isObject(value)) return fail(path)
    for (const [key, check] of Object.entries(fields)) check(Object.hasOwn(value, key) ? value[key] : undefined, `${path}.${key}`)
  }
/** Object with any keys. */
export const map =
  (check: Check, max: number): Check =>
  (value, path) => {
    if (!isObject(value)) return fail(path)
    const entries = Object.entries(value)
    if (entries.length > max) fail(path)
    entries.forEach(([key, item]) => check(item, `${path}.${key.slice(0, 40)}`))
  }

// Times in fields of the type `datetime-local`, which have no zone.

const pad = (value: number) => String(value).padStart(2, '0')

/** Time in the zone of the browser, such as 2026-11-28T16:34:10. */
export function localDateTime(ms: number): string {
  const time = new Date(ms)
  const date = `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`
  return `${date}T${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())}`
}

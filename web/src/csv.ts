// CSV files that the browser makes of the data on a page.

/** Cells that spreadsheets would evaluate: they also skip leading spaces, and know full-width operators. */
const FORMULA = /^\s*[=+\-@\t\r＝＋－＠]/

/** Text of a cell. Texts come from hosts: a formula gets an apostrophe (CWE-1236). Numbers are never escaped. */
function cell(value: string | number | null | undefined): string {
  if (value === null || value === undefined) return ''
  if (typeof value === 'number') return String(value)
  const text = FORMULA.test(value) ? `'${value}` : value
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

/** Records with a header line (RFC 4180). */
export function toCsv(header: readonly string[], rows: readonly (readonly (string | number | null | undefined)[])[]): string {
  return [header, ...rows].map((row) => `${row.map(cell).join(',')}\r\n`).join('')
}

/** Time of a cell: UTC, whatever zone the page shows. */
export const csvTime = (ms: number | null | undefined) => (ms ? new Date(ms).toISOString() : '')

/** Saves a text as a file. */
export function download(name: string, text: string) {
  const url = URL.createObjectURL(new Blob([text], { type: 'text/csv;charset=utf-8' }))
  const link = Object.assign(document.createElement('a'), { href: url, download: name })
  link.click()
  // The download has its own reference once the click is handled.
  setTimeout(() => URL.revokeObjectURL(url))
}

// CSV files that the browser makes of the data on a page.
import { download } from './lib/download'

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

/** Saves a CSV text as a file. */
export const downloadCsv = (name: string, text: string) => download(name, new Blob([text], { type: 'text/csv;charset=utf-8' }))

// Fields of the kinds of channels: choices of those with fixed values, and the field that an error of the hub is about.
import './texts'
import { ApiError } from '../../api/errors'
import { t } from '../../i18n'

/** Choices of a field; undefined for free text. An empty value is the default of the hub. */
export function fieldOptions(kind: string, field: string) {
  if (kind !== 'email' || field !== 'security') return undefined
  return (['', 'starttls', 'tls', 'none'] as const).map((value) => ({
    value: value as string,
    label: t(`alerts.channel.security.${value || 'default'}`),
  }))
}

/** Field and text of an error such as "url: required"; null for errors about something else. */
export function fieldError(error: unknown, fields: readonly string[]): { field: string; text: string } | null {
  const [, field, text] = (error instanceof ApiError && /^(\w+): (.+)$/s.exec(error.message)) || []
  if (!field || !text || !fields.includes(field)) return null
  return { field, text: `${text.charAt(0).toUpperCase()}${text.slice(1)}.` }
}

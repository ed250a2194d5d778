// Texts, colors and links that several alert pages share.
import './texts'
import type { Alert, Explanation, Incident, Notification, RecipientResult } from '../../api/types'
import { dayClock } from '../../dayTime'
import { messageText, t } from '../../i18n'
import { duration, format, type Unit } from '../../lib/format'

/** Name of the user in an actor such as `user alice`; other actors are unchanged. */
export const actorName = (actor: string) => actor.replace(/^user /, '')

type Delivered = Pick<Notification, 'state' | 'error'>

/** Returns whether a recipient refused or deferred the notification. */
export const isPartlyDelivered = ({ recipients }: Notification) => recipients.some((result) => result.state !== 'sent')

/** A sent notification has an error if it did not reach all recipients. */
const isPartlySent = ({ state, error }: Delivered) => state === 'sent' && Boolean(error)

/** Text of a notification's state; states without a translation are shown as received. */
const notificationState = (state: string) => messageText(`alerts.notification.state.${state}`) ?? state

/** Text of a notification's state and of its recipients. */
export const deliveryState = (row: Delivered) =>
  isPartlySent(row) ? t('alerts.notification.state.partlySent') : notificationState(row.state)

/** Color of the dot in front of a delivery state. */
export const deliveryTone = (row: Delivered) => (isPartlySent(row) ? 'warning' : notificationTone(row.state))

/** Result of the delivery to one recipient: address, state and the reply of the server. */
export const recipientText = ({ state, recipient, reason }: RecipientResult) =>
  t(`alerts.notification.recipient.${state}`, { recipient, reason: reason ?? '' })

/** Text of the event that a notification reports. */
export const notificationReason = (reason: string) => messageText(`alerts.notification.reason.${reason}`) ?? reason

/** Color of the dot in front of a notification's state. */
function notificationTone(state: string): '' | 'ok' | 'warning' | 'critical' {
  switch (state) {
    case 'pending':
      return 'warning'
    case 'sent':
      return 'ok'
    case 'failed':
      return 'critical'
    default:
      return ''
  }
}

/** Name of an alert or of a backtested interval: subject, then the instance in parentheses. */
export const withInstance = (subject: string, instance: string) => (instance ? `${subject} (${instance})` : subject)

const CONTEXT_MS = 300_000

/** Link to the page of a host, pinned to a time with five minutes of context on both sides. */
export const hostLinkAt = (hostId: string, atMs: number) => `/hosts/${hostId}?from=${atMs - CONTEXT_MS}&to=${atMs + CONTEXT_MS}&at=${atMs}`

/** Whether an alert reports that its host sends nothing: such alerts have no metric. */
export const isNoData = ({ host, metric }: Pick<Alert, 'host' | 'metric'>) => Boolean(host) && !metric

/** Time that shows an alert: when it fired, or the last sample of a host that sends nothing since. */
export const shownMs = (alert: Alert) => (isNoData(alert) ? alert.fired_ms - (alert.value ?? 0) * 1000 : alert.fired_ms)

/** Link to the host of an alert at the time that shows it. */
export const replayLink = (alert: Alert) => (alert.host ? hostLinkAt(alert.host, shownMs(alert)) : '')

/** Text of that link. */
export const replayText = (alert: Alert) =>
  t(isNoData(alert) ? 'alerts.list.replayLast' : 'alerts.list.replayAt', { time: dayClock(shownMs(alert)) })

/** Weekdays of a weekly window, in their wire form. */
export const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const

export const dayName = (day: string) => messageText(`alerts.weekly.days.${day}`) ?? day

/** Options by duration in hours of a new silence. */
export const SILENCE_DURATIONS = [
  { value: '0.5', label: t('common.time.thirtyMinutes') },
  { value: '2', label: t('common.time.twoHours') },
  { value: '8', label: t('common.time.eightHours') },
  { value: '24', label: t('common.time.oneDay') },
  { value: '168', label: t('common.time.oneWeek') },
  { value: '', label: t('alerts.silences.untilRemoved') },
]

/** Duration in a list: seconds only below a minute, because a value that changes each second cannot be read. */
export function span(ms: number): string {
  const seconds = ms / 1000
  return duration(seconds < 60 ? seconds : Math.floor(seconds / 60) * 60)
}

export const RESOURCE_UNITS: Record<Explanation['resource'], Unit> = {
  cpu: 'percent',
  memory: 'bytes',
  io: 'bytes_per_second',
  open_files: 'count',
}

/** Usage of a process: processors as cores, because 412 % needs thought. */
export function usage(value: number, resource: Explanation['resource']): string {
  if (resource === 'cpu' && value >= 99.95) return t('alerts.list.cores', { count: (value / 100).toFixed(1) })
  return format(value, RESOURCE_UNITS[resource])
}

type ProcessUsage = Pick<NonNullable<Alert['largest_consumer']>, 'current' | 'baseline' | 'resource'>

/** Share of the usage within which it counts as unchanged. */
const STEADY = 0.1

/** Usage of a process before the alert. */
export function usageBefore({ current, baseline, resource }: ProcessUsage): string {
  if (baseline === null) return t('alerts.incident.consumers.new')
  if (Math.abs(current - baseline) <= STEADY * current) return t('alerts.incident.consumers.steady')
  return t('alerts.incident.consumers.before', { value: usage(baseline, resource) })
}

/** Threshold without the decimals of a measured value: 90% and not 90.0%. */
export const limitText = (value: number | null, unit: Unit) =>
  value !== null && unit === 'percent' ? `${Number(value.toFixed(2))}%` : format(value, unit)

/** Newest value of a course that contains no time before `sinceMs`. */
export function newestSince(spark: Incident['spark'], sinceMs: number): number | null {
  if (!spark) return null
  const values = spark.values.filter((_, index) => spark.from_ms + index * spark.step_ms >= sinceMs)
  return values.filter((value) => value !== null).at(-1) ?? null
}

/** Whether a value is on the side of the threshold on which the alert fires. */
export function isBreached(value: number | null, alert: Alert): boolean {
  if (value === null || alert.threshold === null) return false
  return isAbove(alert) ? value >= alert.threshold : value <= alert.threshold
}

/** Whether the alert fires above its threshold, as its value shows. */
export const isAbove = ({ value, threshold }: Alert) => value === null || threshold === null || value >= threshold

// Texts, colors and links that several alert pages share.
import type { Notification, RecipientResult } from '../../api/types'
import { messageText, t } from '../../i18n'

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

/** Weekdays of a weekly window, in their wire form. */
export const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const

export const dayName = (day: string) => messageText(`alerts.weekly.days.${day}`) ?? day

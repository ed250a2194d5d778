// Document of a capsule: everything except series and processes.
import type { Alert, HostEvent, Incident, IncidentEvent } from '../api/types'
import { decodeText } from './bytes'
import { choice, count, flag, list, map, number, object, optional, text, time, tuple } from './checks'
import { CapsuleError, invalid } from './errors'
import { MAX_EVENTS, MAX_HOSTS, MAX_PROCESS_ROWS, MAX_ROWS, MAX_SERIES, MAX_TEXT_BYTES, MAX_VALUES } from './limits'

/** Metric, instance and decimals of a series. */
export type SeriesName = [metric: string, instance: string, decimals: number]

export interface CapsuleHost {
  id: string
  name: string
  tags: string[]
  facts: { os: string; cores: number; memory_bytes: number } | null
  interval_ms: number
  rows: number
  series: SeriesName[]
  process_rows: number
  events: HostEvent[]
  alerts: Alert[]
}

export interface CapsuleIncident {
  incident: Incident
  timeline: IncidentEvent[]
}

export interface CapsuleDocument {
  title: string
  note: string
  created_ms: number
  created_by: string
  created_with: string
  from_ms: number
  to_ms: number
  masked: { commands: boolean; users: boolean; hosts: boolean }
  units: Record<string, string>
  hosts: CapsuleHost[]
  incidents: CapsuleIncident[]
}

const anyText = text(MAX_TEXT_BYTES)
const short = text(1_024)
const severity = choice('critical', 'warning', 'info')
const MAX_LIST = 100
const MAX_TIMELINE = 1_000

const explanation = object({
  resource: choice('cpu', 'memory', 'io', 'open_files'),
  from_ms: time,
  to_ms: time,
  baseline_from_ms: time,
  consumers: list(
    object({ pid: number, name: short, user: short, command: anyText, current: number, baseline: optional(number) }),
    MAX_LIST,
  ),
  movers: list(object({ metric: short, instance: short, current: number, baseline: number }), MAX_LIST),
})

const alert = object({
  id: short,
  rule_name: anyText,
  host_name: short,
  instance: short,
  metric: short,
  severity,
  summary: anyText,
  runbook: anyText,
  pending_since_ms: time,
  fired_ms: time,
  resolved_ms: optional(time),
  value: optional(number),
  threshold: optional(number),
  explanation: optional(explanation),
})

const event = object({
  kind: choice('alert', 'gap', 'reboot', 'first_seen', 'system', 'agent', 'change', 'connection'),
  from_ms: time,
  to_ms: optional(time),
  severity: optional(severity),
  text: anyText,
  detail: anyText,
  actor: short,
  before: anyText,
  after: anyText,
})

const entry = object({
  at_ms: time,
  kind: choice(
    'fired',
    'resolved',
    'backfilled',
    'silenced',
    'silence_expired',
    'acknowledged',
    'unacknowledged',
    'ack_expired',
    'incident_resolved',
    'notified',
    'notification_retrying',
    'notification_failed',
    'comment',
  ),
  actor: short,
  text: anyText,
})

const host = object({
  id: short,
  name: short,
  tags: list(short, MAX_LIST),
  facts: optional(object({ os: short, cores: number, memory_bytes: number })),
  interval_ms: count(86_400_000),
  rows: count(MAX_ROWS),
  series: list(tuple(short, short, count(15)), MAX_SERIES),
  process_rows: count(MAX_PROCESS_ROWS),
  events: list(event, MAX_EVENTS),
  alerts: list(alert, MAX_EVENTS),
})

const documentCheck = object({
  title: short,
  note: anyText,
  created_ms: time,
  created_by: short,
  created_with: short,
  from_ms: time,
  to_ms: time,
  masked: object({ commands: flag, users: flag, hosts: flag }),
  units: map(short, MAX_SERIES * MAX_HOSTS),
  hosts: list(host, MAX_HOSTS),
  incidents: list(
    object({
      incident: object({ id: short, title: anyText, severity, opened_ms: time, alerts: list(alert, MAX_EVENTS) }),
      timeline: list(entry, MAX_TIMELINE),
    }),
    MAX_EVENTS,
  ),
})

/** Parses and checks the document. */
export function readDocument(content: Uint8Array): CapsuleDocument {
  let json: unknown
  try {
    json = JSON.parse(decodeText(content))
  } catch {
    throw invalid('document')
  }
  documentCheck(json, 'document')
  const document = json as CapsuleDocument
  if (document.from_ms >= document.to_ms) throw invalid('document.to_ms')
  const values = document.hosts.reduce((total, { rows, series }) => total + rows * series.length, 0)
  if (values > MAX_VALUES) throw new CapsuleError('tooLarge')
  return document
}

// Names for what the hub says; the shapes themselves are generated from its API document.
// Times are milliseconds since 1970, live values integers scaled by the column's decimals.
import type { components } from './schema'

type Shapes = components['schemas']

export type Host = Shapes['HostJson']
export type HostList = Shapes['HostsJson']
export type System = Shapes['SystemJson']
export type ProcessRow = Shapes['ProcessRow']
export type ProcessesAnswer = Shapes['ProcessesAnswer']
export type SeriesAnswer = Shapes['SeriesAnswer']
export type SnapshotAnswer = Shapes['SnapshotAnswer']
export type Column = Shapes['Column']
export type Scaled = number | null
export type BackfillEntry = Shapes['BackfillEntry']
export type TickEntry = Shapes['TickEntry']
export type LiveMessage = Shapes['LiveMessage']

export type Role = Shapes['Role']
export type AuthState = Shapes['AuthState']
export type Me = Shapes['MeJson']
export type TotpOffer = Shapes['TotpOffer']
export type RecoveryCodes = Shapes['RecoveryCodes']
export type SessionRow = Shapes['SessionJson']
export type User = Shapes['UserJson']
export type Token = Shapes['TokenJson']
export type MadeToken = Shapes['MadeToken']
export type Agent = Shapes['AgentJson']
export type AgentList = Shapes['AgentsJson']
export type Enrolment = Shapes['EnrolmentJson']
export type MadeEnrolment = Shapes['MadeEnrolment']
export type AuditPage = Shapes['AuditJson']
export type AuditEntry = Shapes['AuditEntryJson']

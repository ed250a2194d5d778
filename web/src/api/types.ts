// What the hub says. Times are milliseconds since 1970, live values integers scaled by the
// column's decimals.

export interface HostFacts {
  os: string
  kernel: string
  arch: string
  cpu_model: string
  cores: number
  memory_bytes: number
  boot_time_ms: number
  agent_version: string
}

export interface Host {
  id: string
  name: string
  status: 'new' | 'online' | 'silent'
  facts: HostFacts | null
  first_seen_ms: number
  last_seen_ms: number | null
  last_at_ms: number | null
  interval_ms: number
  clock_skew_ms: number | null
}

export interface HostList {
  hosts: Host[]
  total: number
  now_ms: number
  next: number | null
}

export interface HistoryState {
  store: string
  disk_bytes: number
  budget_bytes: number
  raw_bytes: number
  minute_bytes: number
  hour_bytes: number
  raw_keep_s: number
  minute_keep_s: number
  hour_keep_s: number
  refusing: string | null
}

export interface System {
  version: string
  uptime_s: number
  now_ms: number
  hosts: number
  live_clients: number
  accepted_snapshots: number
  history: HistoryState
  memory_bytes: number | null
  cpu_seconds: number | null
}

export interface ProcessRow {
  pid: number
  name: string
  user: string
  command: string
  state: string
  cpu_percent: number
  memory_bytes: number
  /** None in a sum over time. */
  threads?: number
  handles?: number
  read_bytes?: number
  write_bytes?: number
  started_ms: number
}

/** A process summed up over some time. */
export interface ProcessUse {
  pid: number
  name: string
  user: string
  command: string
  started_ms: number
  first_ms: number
  last_ms: number
  rows: number
  cpu_percent_mean: number
  cpu_percent_max: number
  memory_bytes_max: number
  read_bytes: number
  written_bytes: number
}

export interface PastSeries {
  metric: string
  instance: string
  unit: string | null
  v: (number | null)[]
  /** Where a point is more than one tick. */
  min?: (number | null)[]
  max?: (number | null)[]
}

export interface SeriesAnswer {
  host_id: string
  from_ms: number
  to_ms: number
  tier: 'raw' | '1m' | '1h'
  /** Width of a point; 0 where each tick is one. */
  step_ms: number
  t: number[]
  gaps: { from_ms: number; to_ms: number; why: string }[]
  series: PastSeries[]
}

export interface SnapshotAnswer {
  at_ms: number
  resolution_ms: number
  snapshot: { processes?: { top?: ProcessRow[] } }
}

export interface Column {
  metric: string
  instance: string
  decimals: number
}

export type Scaled = number | null

export interface BackfillEntry {
  host: string
  shape: string
  interval_ms: number
  columns: Column[]
  t: number[]
  v: Scaled[][]
  processes?: ProcessRow[]
}

export interface TickEntry {
  host: string
  shape: string
  t: number
  seq: number
  interval_ms: number
  v: Scaled[]
  processes?: ProcessRow[]
  errors?: Record<string, string>
}

export type LiveMessage =
  | { type: 'backfill'; id: number; hosts: BackfillEntry[] }
  | { type: 'columns'; id: number; host: string; shape: string; columns: Column[] }
  | { type: 'tick'; id: number; hosts: TickEntry[] }
  | { type: 'lagged'; missed: number }
  | { type: 'pong'; ping: number }
  | { type: 'error'; error: { code: string; message: string } }

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

export interface System {
  version: string
  uptime_s: number
  now_ms: number
  hosts: number
  live_clients: number
  accepted_snapshots: number
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
  threads: number
  handles?: number
  read_bytes?: number
  write_bytes?: number
  started_ms: number
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

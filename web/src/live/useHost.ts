// One host, live: its columns, and a version that counts up at most once a frame.
import { onScopeDispose, shallowRef, type ShallowRef } from 'vue'
import { liveSocket } from '../api/live'
import type { LiveMessage } from '../api/types'
import { HostColumns } from './columns'

export interface LiveHost {
  columns: HostColumns
  /** Changes when there is something new to draw. */
  version: ShallowRef<number>
  /** Stops following `version`; data still arrives. */
  paused: ShallowRef<boolean>
  setPaused(paused: boolean): void
}

export const BACKFILL_S = 300

export function useHost(id: string, metrics: string[]): LiveHost {
  const columns = new HostColumns()
  const version = shallowRef(0)
  const paused = shallowRef(false)
  let frame = 0

  const flush = () => {
    frame = 0
    if (!paused.value) version.value++
  }
  // A hidden tab gets no frames: it draws nothing and catches up when it is shown.
  const soon = () => {
    frame ||= requestAnimationFrame(flush)
  }

  const hear = (message: LiveMessage) => {
    if (message.type === 'columns') {
      columns.setShape(message.shape, message.columns)
    } else if (message.type === 'backfill') {
      for (const entry of message.hosts) columns.backfill(entry)
      soon()
    } else if (message.type === 'tick') {
      for (const entry of message.hosts) columns.tick(entry)
      soon()
    }
  }

  const end = liveSocket().subscribe({ hosts: [id], metrics, processes: true, backfill_s: BACKFILL_S }, hear)
  onScopeDispose(() => {
    end()
    cancelAnimationFrame(frame)
  })
  return {
    columns,
    version,
    paused,
    setPaused(value) {
      paused.value = value
      columns.keepAll = value
      soon()
    },
  }
}

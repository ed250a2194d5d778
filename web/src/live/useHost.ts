// Live data of one host: its columns and a version counter that increases at most once per frame.
import { onScopeDispose, shallowRef, type ShallowRef } from 'vue'
import { liveSocket } from '../api/live'
import type { LiveMessage } from '../api/types'
import { HostColumns } from './columns'

export interface LiveHost {
  columns: HostColumns
  /** Increases when new data is to be drawn. */
  version: ShallowRef<number>
  /** While true, `version` does not change; data is still received. */
  paused: ShallowRef<boolean>
  setPaused(paused: boolean): void
}

/** Seconds of backfill at the start of a subscription: the hub's recent window. */
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
  // Hidden tabs get no frames: they draw nothing until they are shown.
  const scheduleFlush = () => {
    frame ||= requestAnimationFrame(flush)
  }

  const onMessage = (message: LiveMessage) => {
    if (message.type === 'columns') {
      columns.setShape(message.shape, message.columns)
    } else if (message.type === 'backfill') {
      for (const entry of message.hosts) columns.backfill(entry)
      scheduleFlush()
    } else if (message.type === 'tick') {
      for (const entry of message.hosts) columns.tick(entry)
      scheduleFlush()
    }
  }

  const unsubscribe = liveSocket().subscribe({ hosts: [id], metrics, processes: true, backfill_s: BACKFILL_S }, onMessage)
  onScopeDispose(() => {
    unsubscribe()
    cancelAnimationFrame(frame)
  })
  return {
    columns,
    version,
    paused,
    setPaused(value) {
      paused.value = value
      columns.keepAll = value
      scheduleFlush()
    },
  }
}

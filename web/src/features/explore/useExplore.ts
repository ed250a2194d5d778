// Queries of the address or of the open view, and their answer, which is repeated while the range moves.
import { computed, onScopeDispose, ref, shallowRef, watch } from 'vue'
import { useRoute, useRouter } from 'vue-router'
import { api, unwrap } from '../../api/client'
import { ApiError, errorMessage } from '../../api/errors'
import type { QueryResponse, QuerySet, SavedView } from '../../api/types'
import type { View } from '../../charts/chartProps'
import { hubNow } from '../../lib/hubClock'
import { useReconnect } from '../../useReconnect'
import { fromQuery, presetOf, type RangePreset } from '../host/range'
import { defaultState, type ExploreState, fromAddress, toAddress, viewState } from './state'

const MAX_POINTS = 361
/** Shortest and longest pause between two requests of a moving range. */
const REFRESH_MS = 10_000
const MAX_REFRESH_MS = 60_000
/** Pause after the last change of a query before it is sent: typed text changes with each key. */
const TYPING_MS = 250
const DEFAULT_RANGE: RangePreset['key'] = '1h'
const MIN_ZOOM_S = 5

const toMs = (seconds: number) => String(Math.round(seconds * 1000))

export function useExplore(id: () => string | undefined) {
  const route = useRoute()
  const router = useRouter()
  const savedView = shallowRef<SavedView | null>(null)
  const viewError = ref('')
  const isMissing = ref(false)
  const isViewLoading = ref(false)
  const saved = computed<ExploreState>(() => (savedView.value ? viewState(savedView.value) : defaultState()))
  const state = computed(() => fromAddress(route.query, saved.value))
  const isEdited = computed(() => ['q', 'split', 'form'].some((name) => route.query[name] !== undefined))

  async function loadView() {
    const view = id()
    savedView.value = null
    viewError.value = ''
    isMissing.value = false
    if (!view) return
    isViewLoading.value = true
    try {
      const found = await unwrap(api.GET('/api/v1/views/{id}', { params: { path: { id: view } } }))
      if (id() === view) savedView.value = found
    } catch (error) {
      isMissing.value = error instanceof ApiError && error.status === 404
      viewError.value = errorMessage(error)
    } finally {
      isViewLoading.value = false
    }
  }
  watch(id, () => void loadView(), { immediate: true })

  /** Range of the address, of the view, or the last hour. */
  const range = computed(() => fromQuery({ range: savedRange(savedView.value) ?? DEFAULT_RANGE, ...route.query }))
  const answer = shallowRef<QueryResponse | null>(null)
  /** Queries of the answer. */
  const answered = shallowRef<QuerySet>({ queries: [] })
  const shown = shallowRef<{ from: number; to: number } | null>(null)
  const version = ref(0)
  const problem = ref('')
  const isLoading = ref(false)
  const receivedMs = ref(0)
  /** Time between two requests: long ranges change rarely. */
  const intervalMs = ref(REFRESH_MS)
  let request = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  let failures = 0

  const trigger = computed(() => JSON.stringify([state.value.set, range.value.fixed, range.value.preset.key, id() && !savedView.value]))

  async function refresh() {
    clearTimeout(timer)
    request.abort()
    const { set } = state.value
    if ((id() && !savedView.value) || !set.queries.length) {
      answer.value = null
      isLoading.value = false
      return
    }
    request = new AbortController()
    const { signal } = request
    const now = hubNow() / 1000
    const bounds = range.value.fixed ?? { from: now - range.value.preset.seconds, to: now }
    isLoading.value = true
    try {
      const body = { from: toMs(bounds.from), to: toMs(bounds.to), points: MAX_POINTS, ...set, formulas: set.formulas ?? [] }
      const found = await unwrap(api.POST('/api/v1/query', { body, signal }))
      answer.value = found
      answered.value = set
      shown.value = bounds
      version.value++
      problem.value = ''
      receivedMs.value = Date.now()
      failures = 0
    } catch (error) {
      if (signal.aborted) return
      problem.value = errorMessage(error)
      failures++
    }
    isLoading.value = false
    schedule()
  }

  function schedule() {
    // A range in the past does not change, and an invalid query fails again.
    if (document.hidden || range.value.fixed || !state.value.set.queries.length) return
    const stepMs = (range.value.preset.seconds / MAX_POINTS) * 1000
    const pause = Math.min(MAX_REFRESH_MS, Math.max(REFRESH_MS, stepMs, (answer.value?.duration_ms ?? 0) * 10))
    intervalMs.value = pause
    timer = setTimeout(() => void refresh(), Math.min(MAX_REFRESH_MS, pause * 2 ** Math.min(failures, 3)))
  }

  let typing: ReturnType<typeof setTimeout> | undefined
  watch(
    trigger,
    (_, before) => {
      clearTimeout(typing)
      typing = setTimeout(() => void refresh(), before === undefined ? 0 : TYPING_MS)
    },
    { immediate: true },
  )

  function onVisibility() {
    if (!document.hidden) void refresh()
  }
  useReconnect(refresh)
  document.addEventListener('visibilitychange', onVisibility)
  onScopeDispose(() => {
    clearTimeout(timer)
    clearTimeout(typing)
    request.abort()
    document.removeEventListener('visibilitychange', onVisibility)
  })

  const view = computed<View>(() => ({ window: range.value.preset.seconds, fixed: shown.value }))

  function update(changes: Partial<ExploreState>) {
    void router.replace({ query: toAddress({ ...state.value, ...changes }, saved.value, route.query) })
  }

  function navigate(changes: Record<string, string | undefined>) {
    void router.push({ query: { ...route.query, from: undefined, to: undefined, ...changes } })
  }
  const selectPreset = (key: RangePreset['key']) => navigate({ range: key })
  const selectRange = (from: number, to: number) => navigate({ from: toMs(from), to: toMs(Math.max(to, from + MIN_ZOOM_S)) })
  const resetZoom = () => navigate({})

  /** Moves the range by half its width. */
  function shift(direction: number) {
    const now = hubNow() / 1000
    const { from, to } = range.value.fixed ?? { from: now - range.value.preset.seconds, to: now }
    const offset = (direction * (to - from)) / 2
    selectRange(from + offset, to + offset)
  }

  return {
    ...{ state, saved, savedView, viewError, isMissing, isViewLoading, isEdited, loadView },
    ...{ range, answer, answered, version, problem, isLoading, receivedMs, intervalMs, view, refresh },
    ...{ update, selectPreset, selectRange, resetZoom, shift },
  }
}

/** Preset of the range that a view was saved with. */
function savedRange(view: SavedView | null): RangePreset['key'] | undefined {
  const seconds = /^-(\d+)s$/.exec(view?.chart.from ?? '')?.[1]
  const keys = ['1m', '5m', '15m', '1h', '6h', '24h', '7d', '30d'] as const
  return keys.find((key) => presetOf(key).seconds === Number(seconds))
}

export type Explore = ReturnType<typeof useExplore>

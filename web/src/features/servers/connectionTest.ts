// Connection test whose stages and steps are received while it runs.
import { onScopeDispose, ref, shallowRef } from 'vue'
import { api } from '../../api/client'
import { ApiError, errorMessage } from '../../api/errors'
import type { CollectionStep, ConnectionTest, ServerRequest } from '../../api/types'

type Stage = CollectionStep['stage']
type Progress = { stage: Stage } | { step: CollectionStep }

/** Parses the complete events of a stream; returns the rest, which has no end yet. */
export function parseEvents(text: string, onEvent: (name: string, data: unknown) => void): string {
  const events = text.split('\n\n')
  const rest = events.pop()!
  for (const event of events) {
    const fields = new Map(
      event.split('\n').map((line): [string, string] => [line.split(':')[0]!, line.slice(line.indexOf(':') + 1).trim()]),
    )
    const data = fields.get('data')
    if (data) onEvent(fields.get('event') ?? 'progress', JSON.parse(data))
  }
  return rest
}

/** Reads the result from a stream of events, or from a plain answer. */
export async function readTest(body: ReadableStream<Uint8Array>, onProgress: (progress: Progress) => void): Promise<ConnectionTest> {
  const reader = body.pipeThrough(new TextDecoderStream() as unknown as TransformStream<Uint8Array, string>).getReader()
  let [text, result] = ['', null as ConnectionTest | null]
  for (;;) {
    const { value, done } = await reader.read()
    if (done) break
    text = parseEvents(text + value, (name, data) => {
      if (name === 'error') {
        const [code, message] = data as [string, string]
        throw new ApiError(409, code, message)
      }
      if (name === 'result') result = data as ConnectionTest
      else onProgress(data as Progress)
    })
  }
  if (result) return result
  if (text.startsWith('{')) return JSON.parse(text) as ConnectionTest
  throw new TypeError('the connection was closed before the result')
}

/** Unsaved server with the id of the saved one whose credentials it may use, or the id of a saved server. */
type TestTarget = { id: string | null; server: ServerRequest } | { saved: string }

/** Tests of a form or page, one at a time. A closed page ends its test. */
export function useConnectionTest() {
  const running = ref(false)
  const stage = ref<Stage | null>(null)
  const steps = shallowRef<CollectionStep[]>([])
  const result = shallowRef<ConnectionTest | null>(null)
  const problem = ref('')
  let abort: AbortController | undefined
  onScopeDispose(() => abort?.abort())

  function onProgress(progress: Progress) {
    if ('stage' in progress) stage.value = progress.stage
    else steps.value = [...steps.value, progress.step]
  }

  async function run(target: TestTarget) {
    abort?.abort()
    abort = new AbortController()
    const { signal } = abort
    running.value = true
    stage.value = result.value = null
    steps.value = []
    problem.value = ''
    try {
      const options = { headers: { accept: 'text/event-stream' }, signal, parseAs: 'stream' } as const
      const { data } =
        'saved' in target
          ? await api.POST('/api/v1/servers/{id}/test', { params: { path: { id: target.saved } }, ...options })
          : await api.POST('/api/v1/servers/test', { body: target, ...options })
      result.value = await readTest(data!, onProgress)
    } catch (error) {
      if (!signal.aborted) problem.value = errorMessage(error)
    }
    if (!signal.aborted) running.value = false
  }

  return { running, stage, steps, result, problem, run }
}

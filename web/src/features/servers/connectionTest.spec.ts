import { expect, it } from 'vitest'
import { parseEvents, readTest } from './connectionTest'

const stream = (...parts: string[]) =>
  new ReadableStream<Uint8Array>({
    start(controller) {
      for (const part of parts) controller.enqueue(new TextEncoder().encode(part))
      controller.close()
    },
  })

it('events are complete with their empty line', () => {
  const events: unknown[] = []
  const rest = parseEvents('data: {"stage":"connect"}\n\nevent: result\ndata: {"ok":true}\n\ndata: {"st', (...event) => events.push(event))
  expect(rest).toBe('data: {"st')
  expect(events).toEqual([
    ['progress', { stage: 'connect' }],
    ['result', { ok: true }],
  ])
})

it('reads the progress and the result', async () => {
  const seen: unknown[] = []
  const body = stream('data: {"stage":"resolve"}\n', '\ndata: {"step":{"stage":"resolve"', '}}\n\n', 'event: result\ndata: {"ok":true}\n\n')
  expect(await readTest(body, (progress) => seen.push(progress))).toEqual({ ok: true })
  expect(seen).toEqual([{ stage: 'resolve' }, { step: { stage: 'resolve' } }])
})

it('reads a plain answer; fails without a result', async () => {
  expect(await readTest(stream('{"ok":', 'false}'), () => {})).toEqual({ ok: false })
  await expect(readTest(stream('data: {"stage":"resolve"}\n\n'), () => {})).rejects.toThrow('closed')
  await expect(readTest(stream('event: error\ndata: ["busy","too many"]\n\n'), () => {})).rejects.toThrow('too many')
})

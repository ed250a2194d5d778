// Time of the hub. The clock of the browser may be wrong; ranges, silences and ages use this time.
import { computed, ref } from 'vue'

/** Least offset of the browser's clock that is corrected: the hub states its time in whole seconds. */
const MAX_JITTER_MS = 2_000
/** Offset from which a note is shown. */
const MIN_NOTED_MS = 60_000

const offsetMs = ref(0)

/** Current time of the hub in Unix milliseconds. */
export const hubNow = (): number => Date.now() + offsetMs.value

/** Offset of the browser's clock from the hub's in milliseconds if it is worth a note, otherwise 0. */
export const notedOffsetMs = computed(() => (Math.abs(offsetMs.value) >= MIN_NOTED_MS ? -offsetMs.value : 0))

/** Compares the clocks by the `Date` header of an answer to a request that was sent at `sentMs`. */
export function compareClocks(response: Response, sentMs: number): void {
  const hubMs = Date.parse(response.headers.get('date') ?? '')
  const receivedMs = Date.now()
  // An answer from a cache has an old date.
  if (Number.isNaN(hubMs) || response.headers.has('age')) return
  const measured = hubMs + 500 - (sentMs + receivedMs) / 2
  // The hub stated its time at any moment between request and answer, which are far apart on a slow network.
  const jitterMs = Math.max(MAX_JITTER_MS, Math.abs(receivedMs - sentMs))
  if (Math.abs(measured - offsetMs.value) > jitterMs) offsetMs.value = Math.abs(measured) > MAX_JITTER_MS ? Math.round(measured) : 0
}

// Pointer of a chart. Mouse: the cursor follows, a drag zooms, a click pins. Touch: a long press shows the cursor, a drag
// moves the range, and vertical movement scrolls the page.
import type uPlot from 'uplot'

export interface PointerHandlers {
  /** Whether a mouse button or a finger is down on the chart. */
  press: (isDown: boolean) => void
  /** Time under the pointer in Unix seconds; null when it leaves. */
  cursor: (time: number | null) => void
  pick: (time: number) => void
  zoom: (from: number, to: number) => void
  /** Range while a finger drags the chart; `isFinal` when the finger is lifted. */
  pan: (from: number, to: number, isFinal: boolean) => void
}

const LONG_PRESS_DELAY_MS = 400
/** Movement that ends the wait for a long press. */
const MIN_MOVE_PX = 8
/** Minimum width of a zoom selection. */
const MIN_SELECTION_PX = 4

type TouchMode = 'waiting' | 'cursor' | 'pan' | 'scroll'

/** Mode of a touch that moved, as long as it waits for a long press. */
export function touchMode(dx: number, dy: number): TouchMode {
  if (Math.abs(dx) < MIN_MOVE_PX && Math.abs(dy) < MIN_MOVE_PX) return 'waiting'
  return Math.abs(dx) > Math.abs(dy) ? 'pan' : 'scroll'
}

function bindTouch(u: uPlot, { press, cursor, pan }: PointerHandlers) {
  const { over } = u
  let mode: TouchMode = 'scroll'
  let timer: ReturnType<typeof setTimeout> | undefined
  let start = { x: 0, y: 0, from: 0, to: 0 }
  let range: [number, number] = [0, 0]

  function showCursor({ clientX, clientY }: Touch) {
    const box = over.getBoundingClientRect()
    const left = Math.min(Math.max(clientX - box.left, 0), box.width)
    u.setCursor({ left, top: Math.min(Math.max(clientY - box.top, 0), box.height) })
    cursor(u.posToVal(left, 'x'))
  }

  over.addEventListener('touchstart', (event) => {
    clearTimeout(timer)
    press(true)
    const touch = event.touches[0]!
    const { min, max } = u.scales.x!
    if (event.touches.length > 1 || min == null || max == null) return void (mode = 'scroll')
    mode = 'waiting'
    start = { x: touch.clientX, y: touch.clientY, from: min, to: max }
    timer = setTimeout(() => {
      mode = 'cursor'
      showCursor(touch)
    }, LONG_PRESS_DELAY_MS)
  })
  over.addEventListener(
    'touchmove',
    (event) => {
      const touch = event.touches[0]!
      const [dx, dy] = [touch.clientX - start.x, touch.clientY - start.y]
      if (mode === 'waiting') {
        mode = touchMode(dx, dy)
        if (mode !== 'waiting') clearTimeout(timer)
      }
      if (mode === 'waiting' || mode === 'scroll') return
      // Otherwise the page would scroll with the finger.
      if (event.cancelable) event.preventDefault()
      if (mode === 'cursor') return showCursor(touch)
      const offset = (-dx / over.clientWidth) * (start.to - start.from)
      range = [start.from + offset, start.to + offset]
      pan(...range, false)
    },
    { passive: false },
  )
  const end = (event: TouchEvent) => {
    clearTimeout(timer)
    // Without this, the browser adds a click, which would pin the time.
    if (mode !== 'waiting' && mode !== 'scroll' && event.cancelable) event.preventDefault()
    if (mode === 'cursor') {
      u.setCursor({ left: -10, top: -10 })
      cursor(null)
    } else if (mode === 'pan') pan(...range, true)
    mode = 'scroll'
    press(event.targetTouches.length > 0)
  }
  over.addEventListener('touchend', end)
  over.addEventListener('touchcancel', end)
  over.addEventListener('contextmenu', (event) => {
    if (mode === 'cursor' || mode === 'waiting') event.preventDefault()
  })
}

/** Hooks of uPlot for the pointer. */
export function pointerHooks(handlers: PointerHandlers) {
  /** Set by a zoom selection, whose final click does not pin a time. */
  let dragged = false

  function ready(u: uPlot) {
    const timeAtCursor = () => u.posToVal(u.cursor.left ?? 0, 'x')
    u.over.addEventListener('mousemove', () => handlers.cursor(timeAtCursor()))
    u.over.addEventListener('mouseleave', () => handlers.cursor(null))
    u.over.addEventListener('click', (event) => {
      if (event.detail === 1 && !dragged) handlers.pick(timeAtCursor())
    })
    u.over.addEventListener('mousedown', (event) => {
      dragged = false
      // Some browsers send no `mouseup` for a button that opens the context menu.
      if (event.button !== 0 || event.ctrlKey) return
      handlers.press(true)
      const released = new AbortController()
      // After uPlot, which listens at the document and ends the selection. The button may be released anywhere.
      for (const type of ['mouseup', 'blur', 'contextmenu']) {
        const release = () => {
          released.abort()
          handlers.press(false)
        }
        window.addEventListener(type, release, { signal: released.signal })
      }
    })
    bindTouch(u, handlers)
  }

  function setSelect(u: uPlot) {
    const { left, width } = u.select
    if (width < MIN_SELECTION_PX) return
    dragged = true
    const [from, to] = [u.posToVal(left, 'x'), u.posToVal(left + width, 'x')]
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
    handlers.zoom(from, to)
  }

  return { ready, setSelect }
}

// Drawings that are spread over frames. Live charts change together; drawn in a single frame without a graphics
// processor, ten of them block the page for longer than 50 ms.

/** Drawings of a frame: below half of its time on a slow processor. */
const MAX_PER_FRAME = 3

const waiting = new Set<() => void>()
let frame = 0

function run() {
  frame = 0
  let count = 0
  for (const draw of waiting) {
    if (count === MAX_PER_FRAME) break
    count++
    waiting.delete(draw)
    draw()
  }
  if (waiting.size > 0) frame ||= requestAnimationFrame(run)
}

/** Draws in one of the next frames, in the order of the calls; once, however often it is called until then. */
export function drawSoon(draw: () => void) {
  waiting.add(draw)
  frame ||= requestAnimationFrame(run)
}

/** Forgets a drawing that waits. */
export function cancelDrawing(draw: () => void) {
  waiting.delete(draw)
}

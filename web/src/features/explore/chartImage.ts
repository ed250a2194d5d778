// Image of the charts, and names of downloaded files.
import { color } from '../../lib/theme'

const PADDING = 12
const TITLE_HEIGHT = 28

/** Name of a file without characters that systems reserve. */
export const fileName = (title: string, extension: string) => `${title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '')}.${extension}`

/** Image of all charts below an element, one below the other with their titles; null without a chart. */
export function drawImage(root: HTMLElement): Promise<Blob | null> {
  const charts = [...root.querySelectorAll('section')].flatMap((section) => {
    const canvas = section.querySelector('canvas')
    return canvas && canvas.width > 0 ? [{ canvas, title: section.querySelector('h2')?.textContent?.trim() ?? '' }] : []
  })
  if (!charts.length) return Promise.resolve(null)
  const ratio = window.devicePixelRatio || 1
  const image = document.createElement('canvas')
  const heights = charts.map(({ canvas }) => canvas.height / ratio + TITLE_HEIGHT + PADDING)
  const width = Math.max(...charts.map(({ canvas }) => canvas.width / ratio)) + 2 * PADDING
  image.width = Math.round(width * ratio)
  image.height = Math.round((heights.reduce((sum, height) => sum + height, 0) + PADDING) * ratio)
  const context = image.getContext('2d')!
  context.scale(ratio, ratio)
  context.fillStyle = color('bg')
  context.fillRect(0, 0, width, image.height)
  context.font = '600 13px Inter, system-ui, sans-serif'
  context.textBaseline = 'middle'
  let y = PADDING
  charts.forEach(({ canvas, title }, at) => {
    context.fillStyle = color('text')
    context.fillText(title.replace(/\s+/g, ' '), PADDING, y + TITLE_HEIGHT / 2, width - 2 * PADDING)
    context.drawImage(canvas, PADDING, y + TITLE_HEIGHT, canvas.width / ratio, canvas.height / ratio)
    y += heights[at]!
  })
  return new Promise((resolve) => image.toBlob(resolve, 'image/png'))
}

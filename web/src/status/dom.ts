// Elements of the public status page: a page of a few dozen nodes needs no framework.

type Child = Node | string | null | undefined | false

/** Creates an element. Texts are text nodes, never markup. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | number | boolean | undefined> = {},
  ...children: (Child | Child[])[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : String(value))
  }
  element.append(...children.flat().filter((child): child is Node | string => child !== null && child !== undefined && child !== false))
  return element
}

const SVG = 'http://www.w3.org/2000/svg'

/** Shapes that differ without their color. */
const ICONS = {
  up: 'M22 12a10 10 0 1 1-20 0 10 10 0 0 1 20 0M8 12l3 3 5-6',
  degraded: 'M12 3 2 20h20zM12 10v4M12 17v.01',
  down: 'M8 2h8l6 6v8l-6 6H8l-6-6V8zM9 9l6 6M15 9l-6 6',
  maintenance: 'M15 6a4 4 0 0 0 4 6l3-3a6 6 0 0 1-8 8l-6 5-4-4 5-6a6 6 0 0 1 8-8z',
  unknown: 'M22 12a10 10 0 1 1-20 0 10 10 0 0 1 20 0M9.5 9.5a2.5 2.5 0 1 1 3.5 2.3c-.7.3-1 .8-1 1.7M12 17v.01',
}

/** Line of values; the style sheet sets its size. */
export function spark(path: string, count: number): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg')
  const line = document.createElementNS(SVG, 'path')
  svg.setAttribute('viewBox', `0 -0.05 ${count - 1} 1.1`)
  svg.setAttribute('preserveAspectRatio', 'none')
  svg.setAttribute('aria-hidden', 'true')
  svg.setAttribute('class', 'spark')
  line.setAttribute('d', path)
  svg.append(line)
  return svg
}

export function icon(state: keyof typeof ICONS, size: number): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg')
  const path = document.createElementNS(SVG, 'path')
  const attributes = { viewBox: '0 0 24 24', width: size, height: size, fill: 'none', stroke: 'currentColor', 'stroke-width': 2 }
  for (const [name, value] of Object.entries(attributes)) svg.setAttribute(name, String(value))
  svg.setAttribute('aria-hidden', 'true')
  path.setAttribute('stroke-linejoin', 'round')
  path.setAttribute('stroke-linecap', 'round')
  path.setAttribute('d', ICONS[state])
  svg.append(path)
  return svg
}

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const SOURCE = join(import.meta.dirname, '..')
const css = readFileSync(join(import.meta.dirname, 'tokens.css'), 'utf8')

/** Color tokens of a theme. */
function tokensOf(theme: string): Map<string, string> {
  const [, block = ''] = new RegExp(`:root\\[data-theme='${theme}'\\] \\{(.*?)\\n\\}`, 's').exec(css) ?? []
  return new Map([...block.matchAll(/--([\w-]+): (#[0-9a-f]{6})/g)].map(([, name, value]) => [name!, value!]))
}

const linear = (value: number) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
const channels = (color: string) => [1, 3, 5].map((at) => linear(parseInt(color.slice(at, at + 2), 16) / 255))

/** Relative luminance and contrast of WCAG 2.2. */
const luminance = (color: string) => channels(color).reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at]!, 0)
function contrast(a: string, b: string): number {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y)
  return (light! + 0.05) / (dark! + 0.05)
}

type Pair = [foreground: string, background: string, least: number]
const SEVERITIES = ['critical', 'warning', 'info', 'ok']
const PAIRS: Pair[] = [
  ...['text', 'text-2', 'text-3'].flatMap((text) => ['bg', 'surface', 'raised', 'over', 'hover'].map((on): Pair => [text, on, 4.5])),
  ...['text', 'text-2'].flatMap((text) => ['active', 'select'].map((on): Pair => [text, on, 4.5])),
  ...['surface', 'bg', 'over', 'raised', 'accent-soft'].map((on): Pair => ['accent', on, 4.5]),
  ...['fill', 'fill-hover', 'critical-fill'].map((on): Pair => ['on-fill', on, 4.5]),
  ...SEVERITIES.flatMap((severity) => ['surface', 'bg', 'raised', 'hover', `${severity}-soft`].map((on): Pair => [severity, on, 4.5])),
  ...SEVERITIES.flatMap((severity) => ['surface', 'bg'].map((on): Pair => [`${severity}-mark`, on, 3])),
  ...['c1', 'c2', 'c3', 'c4', 'c5', 'c6', 'c7', 'c8', 'focus'].map((mark): Pair => [mark, 'surface', 3]),
]

/** Matrices that simulate a missing kind of cone (Machado et al., 2009). */
const SIMULATIONS: Record<string, { matrix: number[][]; least: number }> = {
  normal: {
    matrix: [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
    ],
    least: 10,
  },
  deuteranopia: {
    matrix: [
      [0.367322, 0.860646, -0.227968],
      [0.280085, 0.672501, 0.047413],
      [-0.01182, 0.04294, 0.968881],
    ],
    least: 7,
  },
  protanopia: {
    matrix: [
      [0.152286, 1.052583, -0.204868],
      [0.114503, 0.786281, 0.099216],
      [-0.003882, -0.048116, 1.051998],
    ],
    least: 7,
  },
  tritanopia: {
    matrix: [
      [1.255528, -0.076749, -0.178779],
      [-0.078411, 0.930809, 0.147602],
      [0.004733, 0.691367, 0.3039],
    ],
    least: 4,
  },
}

const multiply = (matrix: number[][], vector: number[]) => matrix.map((row) => row.reduce((sum, value, at) => sum + value * vector[at]!, 0))

function oklab(rgb: number[]): number[] {
  const toCones = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
  ]
  const toLab = [
    [0.2104542553, 0.793617785, -0.0040720468],
    [1.9779984951, -2.428592205, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.808675766],
  ]
  return multiply(toLab, multiply(toCones, rgb).map(Math.cbrt))
}

function distance(a: string, b: string, matrix: number[][]): number {
  const [left, right] = [a, b].map((color) => oklab(multiply(matrix, channels(color)).map((value) => Math.min(Math.max(value, 0), 1))))
  return Math.hypot(...left!.map((value, at) => value - right![at]!)) * 100
}

describe.each(['dark', 'light'])('%s theme', (theme) => {
  const tokens = tokensOf(theme)

  it('text and marks have enough contrast', () => {
    const low = PAIRS.map(([foreground, background, least]) => {
      const ratio = contrast(tokens.get(foreground)!, tokens.get(background)!)
      return ratio >= least ? '' : `${foreground} on ${background}: ${ratio.toFixed(2)} < ${least}`
    })
    expect(low.filter((line) => line !== '')).toEqual([])
  })

  it.each(Object.keys(SIMULATIONS))('series colors are distinct with %s vision', (vision) => {
    const { matrix, least } = SIMULATIONS[vision]!
    const series = [1, 2, 3, 4, 5, 6, 7, 8].map((n) => tokens.get(`c${n}`)!)
    for (const [at, a] of series.entries()) {
      for (const b of series.slice(at + 1)) expect(distance(a, b, matrix), `${a} ${b}`).toBeGreaterThan(least)
    }
  })
})

it('both themes define the same colors', () => {
  expect([...tokensOf('light').keys()].sort()).toEqual([...tokensOf('dark').keys()].sort())
})

it('every used token is defined', () => {
  const texts = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.(vue|css|ts)$/.test(path) && !path.endsWith('.spec.ts'))
    .map((path) => readFileSync(join(SOURCE, path), 'utf8'))
  const defined = new Set(texts.flatMap((text) => [...text.matchAll(/(--[a-z][\w-]*)['"]?\s*:/g)].map(([, name]) => name!)))
  const used = new Set(texts.flatMap((text) => [...text.matchAll(/var\((--[a-z][\w-]*)(?=[,)])/g)].map(([, name]) => name!)))
  expect(used.size).toBeGreaterThan(40)
  expect([...used].filter((name) => !defined.has(name) && !name.startsWith('--reka-'))).toEqual([])
})

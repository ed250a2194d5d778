// Appearance: theme, density and width of the navigation; stored in this browser. `public/appearance.js` applies the
// stored values before the first paint.
import { ref, shallowRef, watch } from 'vue'

export type Theme = 'system' | 'dark' | 'light'
export type Density = 'comfortable' | 'compact'
export type NavWidth = 'full' | 'icons'
export type Patterns = 'on' | 'off'

const dark = window.matchMedia('(prefers-color-scheme: dark)')

/** Value of this browser; `fallback` if none of `values` is stored. */
export function storedChoice<T extends string>(key: string, values: readonly T[], fallback: T): T {
  try {
    const value = localStorage.getItem(`perfwatch.${key}`) as T
    return values.includes(value) ? value : fallback
  } catch {
    return fallback
  }
}

/** Events of stored values with their key: `write` after a change here, `load` after the preferences of the account came. */
export const storage = new EventTarget()

/** Stores a value, or removes it; `silent` for a value that is not a change by the user. */
export function store(key: string, value: string | null, silent = false) {
  try {
    if (value === null) localStorage.removeItem(`perfwatch.${key}`)
    else localStorage.setItem(`perfwatch.${key}`, value)
  } catch {
    // Storage may be disabled; the value still applies to this page.
  }
  if (!silent) storage.dispatchEvent(new CustomEvent('write', { detail: key }))
}

/** Stored JSON; null if there is none. */
export function readStored(key: string): unknown {
  try {
    return JSON.parse(localStorage.getItem(`perfwatch.${key}`) ?? 'null')
  } catch {
    return null
  }
}

/** Reads a value again when the preferences of the account come. */
export function onLoaded(key: string, read: () => void) {
  storage.addEventListener('load', (event) => {
    if ((event as CustomEvent<string>).detail === key) read()
  })
}

export const theme = shallowRef<Theme>(storedChoice('theme', ['dark', 'light'], 'system' as Theme))
export const density = ref<Density>(storedChoice('density', ['compact'], 'comfortable' as Density))
export const navWidth = ref<NavWidth>(storedChoice('nav', ['icons'], 'full' as NavWidth))
/** Whether severities have patterns besides their colors and shapes. */
export const patterns = ref<Patterns>(storedChoice('patterns', ['on'], 'off' as Patterns))
/** Incremented when colors change; canvases redraw then. */
export const themeVersion = shallowRef(0)

/** Sets `data-theme` on the root element. */
export function applyTheme() {
  const isDark = theme.value === 'system' ? dark.matches : theme.value === 'dark'
  document.documentElement.dataset.theme = isDark ? 'dark' : 'light'
  colors.clear()
  themeVersion.value++
}

export function setTheme(next: Theme) {
  theme.value = next
  store('theme', next)
  applyTheme()
}

watch(density, (value) => {
  document.documentElement.dataset.density = value
  store('density', value)
})
watch(navWidth, (value) => {
  document.documentElement.dataset.nav = value
  store('nav', value)
})
watch(patterns, (value) => {
  document.documentElement.dataset.patterns = value
  store('patterns', value)
  themeVersion.value++
})

dark.addEventListener('change', applyTheme)

/** Colors of the current theme: reading the style costs more than drawing. */
const colors = new Map<string, string>()

/** Value of the color token `--name` in the current theme. */
export function color(name: string): string {
  let value = colors.get(name)
  if (value === undefined) {
    value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
    colors.set(name, value)
  }
  return value
}

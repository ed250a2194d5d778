// Color theme: dark, light or the system's preference; stored in this browser.
import { shallowRef } from 'vue'

export type Theme = 'system' | 'dark' | 'light'

const KEY = 'perfwatch.theme'
const dark = window.matchMedia('(prefers-color-scheme: dark)')

function storedTheme(): Theme {
  try {
    const theme = localStorage.getItem(KEY)
    return theme === 'dark' || theme === 'light' ? theme : 'system'
  } catch {
    return 'system'
  }
}

export const theme = shallowRef<Theme>(storedTheme())
/** Incremented when colors change; canvases redraw then. */
export const themeVersion = shallowRef(0)

/** Sets `data-theme` on the root element. */
export function applyTheme() {
  const isDark = theme.value === 'system' ? dark.matches : theme.value === 'dark'
  document.documentElement.dataset.theme = isDark ? 'dark' : 'light'
  themeVersion.value++
}

export function setTheme(next: Theme) {
  theme.value = next
  try {
    localStorage.setItem(KEY, next)
  } catch {
    // Storage may be disabled; the theme still applies to this page.
  }
  applyTheme()
}

dark.addEventListener('change', applyTheme)

/** Value of the color token `--name` in the current theme. */
export function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
}

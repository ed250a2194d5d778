// Dark, light, or as the system has it; remembered in this browser.
import { shallowRef } from 'vue'

export type Theme = 'system' | 'dark' | 'light'

const KEY = 'perfwatch.theme'
const dark = window.matchMedia('(prefers-color-scheme: dark)')

function remembered(): Theme {
  try {
    const theme = localStorage.getItem(KEY)
    return theme === 'dark' || theme === 'light' ? theme : 'system'
  } catch {
    return 'system'
  }
}

export const theme = shallowRef<Theme>(remembered())
/** Changes whenever the colours do: charts redraw. */
export const themeVersion = shallowRef(0)

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
    // A browser that keeps nothing still changes its colours.
  }
  applyTheme()
}

dark.addEventListener('change', applyTheme)

export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
}

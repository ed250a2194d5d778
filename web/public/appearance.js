// Runs before the first paint: theme, density, patterns and navigation as stored in this browser (src/lib/theme.ts).
;(() => {
  const root = document.documentElement.dataset
  const stored = (key) => {
    try {
      return localStorage.getItem(`perfwatch.${key}`)
    } catch {
      return null
    }
  }
  const theme = stored('theme')
  const dark = matchMedia('(prefers-color-scheme: dark)').matches
  root.theme = theme === 'dark' || theme === 'light' ? theme : dark ? 'dark' : 'light'
  root.density = stored('density') === 'compact' ? 'compact' : 'comfortable'
  root.patterns = stored('patterns') === 'on' ? 'on' : 'off'
  root.nav = stored('nav') === 'icons' ? 'icons' : 'full'
})()

// Filter of a list by typed text: subsequence match, where starts of words and runs of letters rank first.

/** Score of `text` for a lower-case query; null without a match. Higher is better. */
export function fuzzyScore(query: string, text: string): number | null {
  const lower = text.toLowerCase()
  const exact = lower.indexOf(query)
  if (exact >= 0) return 1_000 - exact - text.length / 1_000 + (isWordStart(lower, exact) ? 500 : 0)
  let score = 0
  let at = -1
  for (const letter of query) {
    const next = lower.indexOf(letter, at + 1)
    if (next < 0) return null
    score += next === at + 1 ? 3 : isWordStart(lower, next) ? 2 : -0.01 * (next - at)
    at = next
  }
  return score - text.length / 1_000
}

const isWordStart = (text: string, at: number) => at === 0 || !/[a-z0-9]/.test(text[at - 1]!)

/** Best matches first; an empty query returns the first `limit` items in their order. */
export function fuzzyFilter<T>(query: string, items: readonly T[], textOf: (item: T) => string, limit: number): T[] {
  const wanted = query.trim().toLowerCase()
  if (wanted === '') return items.slice(0, limit)
  const scored: [number, T][] = []
  for (const item of items) {
    const score = fuzzyScore(wanted, textOf(item))
    if (score !== null) scored.push([score, item])
  }
  return scored
    .sort((a, b) => b[0] - a[0])
    .slice(0, limit)
    .map(([, item]) => item)
}

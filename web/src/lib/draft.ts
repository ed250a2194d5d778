// Input of forms that were left, kept in this tab. Forms leave secrets out.

const PREFIX = 'perfwatch.draft.'

export function readDraft<T>(key: string): T | null {
  try {
    const text = sessionStorage.getItem(PREFIX + key)
    return text === null ? null : (JSON.parse(text) as T)
  } catch {
    return null
  }
}

/** Keeps a draft; null removes it. */
export function writeDraft(key: string, draft: object | null) {
  try {
    if (draft) sessionStorage.setItem(PREFIX + key, JSON.stringify(draft))
    else sessionStorage.removeItem(PREFIX + key)
  } catch {
    // Storage may be disabled: there is no draft then.
  }
}

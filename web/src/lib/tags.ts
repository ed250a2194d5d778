/** Splits `environment=production, web` into tags; commas and white space separate. */
export const parseTags = (text: string) => text.split(/[\s,]+/).filter((tag) => tag !== '')

/** Tags after some were added and others removed. */
export const changeTags = (tags: readonly string[], added: readonly string[], removed: readonly string[]) => [
  ...new Set([...tags.filter((tag) => !removed.includes(tag)), ...added]),
]

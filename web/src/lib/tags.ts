// Tags as people type them.

/** `environment=production, web` as a list. */
export const tagsOf = (text: string) => text.split(/[\s,]+/).filter((tag) => tag !== '')

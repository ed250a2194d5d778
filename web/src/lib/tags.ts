/** Splits `environment=production, web` into tags; commas and white space separate. */
export const parseTags = (text: string) => text.split(/[\s,]+/).filter((tag) => tag !== '')

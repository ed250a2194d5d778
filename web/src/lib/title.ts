/** Sets the title of the browser tab; without a text, the product name alone. */
export function setTitle(text?: string) {
  document.title = text ? `${text} · PerfWatch` : 'PerfWatch'
}

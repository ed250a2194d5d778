/** Copies a text to the clipboard. Resolves to whether the browser allowed it. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    // Browsers offer no clipboard API without TLS: the text is selected and copied by command. A selection needs no
    // focus, which an open dialog would take back.
    const element = document.createElement('pre')
    element.textContent = text
    document.body.append(element)
    selectText(element)
    const isCopied = document.execCommand('copy')
    element.remove()
    return isCopied
  }
}

/** Selects the text of an element. */
export function selectText(element: Element) {
  const range = document.createRange()
  range.selectNodeContents(element)
  getSelection()?.removeAllRanges()
  getSelection()?.addRange(range)
}

/** Writes only changed text, because all charts of a page follow the cursor. */
export function setText(element: HTMLElement | undefined, text: string) {
  if (element && element.textContent !== text) element.textContent = text
}

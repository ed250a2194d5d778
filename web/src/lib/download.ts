/** Saves content as a file. */
export function download(name: string, content: Blob) {
  const url = URL.createObjectURL(content)
  const link = Object.assign(document.createElement('a'), { href: url, download: name })
  link.click()
  // The download has its own reference once the click is handled.
  setTimeout(() => URL.revokeObjectURL(url))
}

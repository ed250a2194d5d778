// Search of the documentation: sections that contain all words, headings first.
const input = document.getElementById('search')
const results = document.getElementById('results')
const MAX_RESULTS = 12
const MAX_RESULTS_PER_PAGE = 3
let index

async function load() {
  index ??= fetch('search.json').then((response) => response.json())
  return index
}

function rank({ file, title, heading, text }, words) {
  const [high, low] = [heading.toLowerCase(), `${title} ${text}`.toLowerCase()]
  let rank = 0
  for (const word of words) {
    if (high.includes(word)) rank += 4
    else if (low.includes(word)) rank += 1
    else return 0
  }
  // Who searches has a task first; decisions are for developers.
  return file.startsWith('adr-') ? rank / 8 : rank
}

function excerpt(text, word) {
  const at = Math.max(0, text.toLowerCase().indexOf(word))
  const from = Math.max(0, text.lastIndexOf(' ', Math.max(0, at - 50)))
  return text.slice(from, from + 140).trim()
}

function item(section, words) {
  const link = document.createElement('a')
  link.href = section.anchor === '' ? section.file : `${section.file}#${section.anchor}`
  const title = document.createElement('b')
  title.textContent = section.title === section.heading ? section.title : `${section.title} › ${section.heading}`
  const text = document.createElement('span')
  text.textContent = excerpt(section.text, words[0])
  link.append(title, text)
  const entry = document.createElement('li')
  entry.append(link)
  return entry
}

async function search() {
  const query = input.value
  const words = query.toLowerCase().split(/\s+/).filter(Boolean)
  const sections = words.length > 0 ? await load() : []
  if (query !== input.value) return
  const ranked = sections.map((section) => [rank(section, words), section]).filter(([rank]) => rank > 0)
  ranked.sort(([a], [b]) => b - a)
  const perPage = new Map()
  const isShown = ([, { file }]) => {
    perPage.set(file, (perPage.get(file) ?? 0) + 1)
    return perPage.get(file) <= MAX_RESULTS_PER_PAGE
  }
  const shown = ranked.filter(isShown).slice(0, MAX_RESULTS)
  const entries = shown.map(([, section]) => item(section, words))
  if (entries.length === 0 && words.length > 0) {
    const none = document.createElement('li')
    none.textContent = 'Nothing found'
    entries.push(none)
  }
  results.replaceChildren(...entries)
  results.hidden = entries.length === 0
}

input.addEventListener('input', search)
document.addEventListener('keydown', (event) => {
  if (event.key === '/' && !(event.target instanceof HTMLInputElement)) {
    event.preventDefault()
    input.focus()
  } else if (event.key === 'Escape') {
    results.hidden = true
    input.blur()
  }
})
document.addEventListener('click', (event) => {
  if (!results.contains(event.target) && event.target !== input) results.hidden = true
})

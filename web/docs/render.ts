// Renders the documentation of `docs/` to HTML pages, which the hub serves at `/docs`. A link to a page or a heading that does not
// exist fails the build.
import MarkdownIt from 'markdown-it'
import type { Token } from 'markdown-it'
import { posix } from 'node:path'

/** Part of the navigation. */
export interface Part {
  title: string
  pages: { title: string; path: string }[]
}

/** Rendered page. */
export interface Page {
  /** Path of the source in the repository. */
  path: string
  /** Name of the file in the folder `docs` of the dashboard. */
  file: string
  title: string
  html: string
  sections: Section[]
}

/** Text below a heading, for the search. */
export interface Section {
  anchor: string
  heading: string
  text: string
}

/** Parts of `SUMMARY.md`, which has the format of mdBook. */
export function parseSummary(text: string, folder: string): Part[] {
  const parts: Part[] = [{ title: '', pages: [] }]
  for (const line of text.split('\n').slice(1)) {
    const part = /^# (.+)$/.exec(line)
    const page = /^(?:- )?\[(.+)\]\((.+)\)$/.exec(line)
    if (part) parts.push({ title: part[1]!, pages: [] })
    else if (page) parts.at(-1)!.pages.push({ title: page[1]!, path: posix.join(folder, page[2]!) })
  }
  return parts
}

/** Name of a page's file: `docs/adr/0006-history.md` becomes `adr-0006-history.html`. */
export function fileName(path: string, folder: string): string {
  const name = path.startsWith(`${folder}/`) ? path.slice(folder.length + 1) : path
  if (name === 'README.md') return 'index.html'
  return `${name.replace(/\.md$/, '').replaceAll('/', '-').toLowerCase()}.html`
}

/** Anchor of a heading, as GitHub makes it. */
export function slug(heading: string): string {
  const kept = heading.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '')
  return kept.trim().replace(/\s/g, '-')
}

/** Link to another page that is checked when all pages are rendered. */
interface Reference {
  from: string
  href: string
  path: string
  anchor: string
}

/**
 * Renders pages, and the pages that they link to.
 *
 * @throws Error that lists all dead links.
 */
export function renderPages(paths: string[], folder: string, read: (path: string) => string | undefined): Page[] {
  const pages = new Map<string, Page>()
  const references: Reference[] = []
  const dead: string[] = []
  const queue = [...paths]
  for (let path = queue.shift(); path !== undefined; path = queue.shift()) {
    if (pages.has(path)) continue
    const text = read(path)
    if (text === undefined) {
      dead.push(`${path}: file does not exist`)
      continue
    }
    const { page, links } = renderPage(path, folder, text)
    pages.set(path, page)
    for (const link of links) {
      if (link.path.endsWith('.md')) {
        if (read(link.path) === undefined) dead.push(`${path}: ${link.href}`)
        else queue.push(link.path)
        references.push(link)
      } else if (read(link.path) === undefined) dead.push(`${path}: ${link.href}`)
    }
  }
  for (const { from, href, path, anchor } of references) {
    const sections = pages.get(path)?.sections
    if (anchor !== '' && sections && !sections.some((section) => section.anchor === anchor)) dead.push(`${from}: ${href}`)
  }
  if (dead.length > 0) throw new Error(`dead links in the documentation:\n${dead.join('\n')}`)
  return [...pages.values()]
}

function renderPage(path: string, folder: string, text: string): { page: Page; links: Reference[] } {
  const markdown = new MarkdownIt({ linkify: false })
  // Wide tables scroll inside of the page.
  markdown.renderer.rules.table_open = () => '<div class="table" tabindex="0"><table>\n'
  markdown.renderer.rules.table_close = () => '</table></div>\n'
  const tokens = markdown.parse(text, {})
  const sections = addAnchors(tokens)
  const links: Reference[] = []
  for (const token of tokens.flatMap((block) => block.children ?? [])) {
    const href = token.attrGet('href')?.toString() ?? null
    if (token.type !== 'link_open' || href === null || /^[a-z]+:/.test(href)) continue
    const [target, anchor] = href.split('#') as [string, string | undefined]
    const linked = target === '' ? path : posix.join(posix.dirname(path), target)
    links.push({ from: path, href, path: linked, anchor: anchor ?? '' })
    const suffix = anchor === undefined ? '' : `#${anchor}`
    if (linked.endsWith('.md')) token.attrSet('href', `${target === '' ? '' : fileName(linked, folder)}${suffix}`)
    else token.attrSet('href', SERVED_FILES.get(linked) ?? href)
  }
  const html = markdown.renderer.render(tokens, markdown.options, {})
  return { page: { path, file: fileName(path, folder), title: sections[0]?.heading ?? path, html, sections }, links }
}

/** Files of the repository that the hub serves under another address. */
const SERVED_FILES = new Map([['openapi/perfwatch-v1.json', '../api/openapi.json']])

/** Gives each heading an anchor, and returns the texts below them. */
function addAnchors(tokens: Token[]): Section[] {
  const sections: Section[] = []
  const used = new Map<string, number>()
  for (const [index, token] of tokens.entries()) {
    if (token.type === 'heading_open') {
      const heading = plainText(tokens[index + 1])
      const base = slug(heading)
      const repeated = used.get(base) ?? 0
      used.set(base, repeated + 1)
      const anchor = repeated === 0 ? base : `${base}-${repeated}`
      token.attrSet('id', anchor)
      sections.push({ anchor, heading, text: '' })
    } else if (token.type === 'inline' || token.type === 'fence') {
      const section = sections.at(-1)
      if (section && tokens[index - 1]?.type !== 'heading_open') section.text += `${plainText(token)} `
    }
  }
  return sections
}

function plainText(token: Token | undefined): string {
  if (!token?.children) return token?.content ?? ''
  return token.children.map((child) => (child.type === 'softbreak' ? ' ' : child.content)).join('')
}

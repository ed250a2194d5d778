// Frame of a page of the documentation: navigation, search and article.
import { fileName, type Page, type Part } from './render.ts'

const escape = (text: string) => text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] ?? c)

/** Complete HTML of a page. Addresses are relative: the hub may be mounted below any path. */
export function pageHtml(page: Page, parts: Part[], folder: string): string {
  const link = (title: string, path: string) => {
    const current = path === page.path ? ' aria-current="page"' : ''
    return `<li><a href="${fileName(path, folder)}"${current}>${escape(title)}</a></li>`
  }
  const part = ({ title, pages }: Part) => {
    const heading = title === '' ? '' : `<h2>${escape(title)}</h2>`
    return `${heading}<ul>${pages.map(({ title, path }) => link(title, path)).join('')}</ul>`
  }
  const navigation = parts.filter(({ pages }) => pages.length > 0).map(part)
  return `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <meta name="color-scheme" content="dark light" />
    <script src="../appearance.js"></script>
    <link rel="icon" href="../icon.svg" type="image/svg+xml" />
    <link rel="stylesheet" href="docs.css" />
    <title>${escape(page.title)} · PerfWatch documentation</title>
    <script src="search.js" defer></script>
  </head>
  <body>
    <a class="skip" href="#content">Skip to the text</a>
    <header>
      <a class="home" href="index.html"><img src="../icon.svg" alt="" width="20" height="20" />PerfWatch documentation</a>
      <div class="search" role="search">
        <input id="search" type="search" placeholder="Search" aria-label="Search the documentation" autocomplete="off" />
        <ol id="results" hidden></ol>
      </div>
      <a href="../">Dashboard</a>
    </header>
    <div class="columns">
      <nav aria-label="Pages">
        <details class="pages"><summary>All pages</summary>${navigation.join('')}</details>
        <div class="pages">${navigation.join('')}</div>
      </nav>
      <main id="content">
        <article>
${page.html}
        </article>
      </main>
    </div>
  </body>
</html>
`
}

import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Plugin } from 'vite'
import { parseSummary, renderPages } from './render.ts'
import { readSources } from './sources.ts'
import { pageHtml } from './template.ts'

const FOLDER = 'docs'

/** Writes the documentation to the folder `docs` of the dashboard. */
export function documentation(): Plugin {
  let [root, out] = ['.', 'dist']
  return {
    name: 'documentation',
    apply: 'build',
    configResolved(config) {
      root = config.root
      out = join(config.root, config.build.outDir, FOLDER)
    },
    closeBundle() {
      const read = readSources(join(root, '..'))
      const summary = read(`${FOLDER}/SUMMARY.md`)
      if (summary === undefined) throw new Error(`${FOLDER}/SUMMARY.md is missing: the dashboard is built with the documentation`)
      const parts = parseSummary(summary, FOLDER)
      const paths = parts.flatMap(({ pages }) => pages.map(({ path }) => path))
      const pages = renderPages(paths, FOLDER, read)
      mkdirSync(out, { recursive: true })
      for (const page of pages) writeFileSync(join(out, page.file), pageHtml(page, parts, FOLDER))
      const sections = pages.flatMap(({ file, title, sections }) =>
        sections.map(({ anchor, heading, text }, index) => ({ file, title, anchor: index === 0 ? '' : anchor, heading, text })),
      )
      writeFileSync(join(out, 'search.json'), JSON.stringify(sections))
      const source = join(root, FOLDER)
      copyFileSync(join(source, 'search.js'), join(out, 'search.js'))
      const styles = ['fonts.css', 'tokens.css'].map((name) => readFileSync(join(root, 'src/styles', name), 'utf8')).join('\n')
      const tokens = styles.replaceAll('../fonts/', '')
      writeFileSync(join(out, 'docs.css'), `${tokens}\n${readFileSync(join(source, 'docs.css'), 'utf8')}`)
      for (const font of ['inter.woff2', 'geist-mono.woff2']) copyFileSync(join(root, 'src/fonts', font), join(out, font))
    },
  }
}

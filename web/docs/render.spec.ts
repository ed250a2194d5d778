import { expect, test } from 'vitest'
import { fileName, parseSummary, renderPages, slug } from './render.ts'
import { readSources } from './sources.ts'

const render = (files: Record<string, string>) => renderPages(['docs/A.md'], 'docs', (path) => files[path])

test('links between pages are rewritten to files', () => {
  const pages = render({
    'docs/A.md': '# A\n\n[b](B.md#the-end) [self](#a) [root](../ROOT.md) [adr](adr/0001-x.md) [web](https://x.example/a.md)',
    'docs/B.md': '# B\n\n## The end\n\nLast words.',
    'ROOT.md': '# Root\n\n[a](docs/A.md)',
    'docs/adr/0001-x.md': '# X\n\n[back](../A.md)',
  })
  const files = Object.fromEntries(pages.map((page) => [page.file, page.html]))
  expect(Object.keys(files).sort()).toEqual(['a.html', 'adr-0001-x.html', 'b.html', 'root.html'])
  for (const link of ['"b.html#the-end"', '"#a"', '"root.html"', '"adr-0001-x.html"', '"https://x.example/a.md"']) {
    expect(files['a.html']).toContain(`href=${link}`)
  }
  expect(files['adr-0001-x.html']).toContain('href="a.html"')
  expect(files['b.html']).toContain('<h2 id="the-end">')
  expect(pages.find(({ file }) => file === 'b.html')?.sections[1]).toEqual({
    anchor: 'the-end',
    heading: 'The end',
    text: 'Last words. ',
  })
})

test('dead links fail', () => {
  const files = { 'docs/A.md': '# A\n\n[x](GONE.md) [y](B.md#gone) [z](../crates/x.rs) [ok](B.md)', 'docs/B.md': '# B' }
  expect(() => render(files)).toThrow(/A\.md: GONE\.md\n.*A\.md: \.\.\/crates\/x\.rs\n.*A\.md: B\.md#gone$/)
})

test('HTML in the source is text', () => {
  expect(render({ 'docs/A.md': '# A\n\n<script>x</script>' })[0]?.html).toContain('&lt;script&gt;')
})

test('summary has parts with pages', () => {
  expect(parseSummary('# Summary\n\n[Start](README.md)\n\n# Use\n\n- [A](A.md)\n- [Root](../R.md)\n', 'docs')).toEqual([
    { title: '', pages: [{ title: 'Start', path: 'docs/README.md' }] },
    {
      title: 'Use',
      pages: [
        { title: 'A', path: 'docs/A.md' },
        { title: 'Root', path: 'R.md' },
      ],
    },
  ])
  expect(fileName('docs/README.md', 'docs')).toBe('index.html')
  expect(slug('TLS & `hub.tls`: on')).toBe('tls--hubtls-on')
})

test('the documentation has no dead link', () => {
  const read = readSources('..')
  const paths = parseSummary(read('docs/SUMMARY.md') ?? '', 'docs').flatMap(({ pages }) => pages.map(({ path }) => path))
  const pages = renderPages([...paths, 'README.md', 'CONTRIBUTING.md'], 'docs', read)
  expect(pages.length).toBeGreaterThan(20)
  expect(pages.every(({ html, title }) => html.length > 100 && title.length > 2)).toBe(true)
})

// Build of the static viewer: one HTML file with its scripts, styles and fonts, which loads and sends nothing.
import vue from '@vitejs/plugin-vue'
import { createHash } from 'node:crypto'
import { build, type Plugin } from 'vite'

const NAME = 'capsule-viewer.html'

/** Policy of the file: only its own script, no requests. */
const policy = (script: string) =>
  [
    "default-src 'none'",
    `script-src 'sha256-${createHash('sha256').update(script).digest('base64')}'`,
    "style-src 'unsafe-inline'",
    'img-src data: blob:',
    'font-src data:',
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ')

interface BuiltFile {
  type: string
  fileName: string
  code?: string
  source?: string | Uint8Array
}

/** Page of the viewer from the files of its build. */
function inline(files: readonly BuiltFile[]): string {
  const text = ({ code, source }: BuiltFile) => code ?? (typeof source === 'string' ? source : Buffer.from(source ?? '').toString())
  const page = files.find(({ fileName }) => fileName.endsWith('.html'))
  const scripts = files.filter(({ type }) => type === 'chunk')
  const styles = files.filter(({ fileName }) => fileName.endsWith('.css'))
  const others = files.filter((file) => file !== page && !scripts.includes(file) && !styles.includes(file))
  if (!page || scripts.length !== 1 || others.length > 0) {
    throw new Error(`the viewer is not one file: ${files.map(({ fileName }) => fileName).join(', ')}`)
  }
  // Inside a script element, an end tag in a string would end the script.
  const script = text(scripts[0]!).replaceAll('</script', '<\\/script')
  const head = [
    `<meta http-equiv="Content-Security-Policy" content="${policy(script)}" />`,
    `<style>${styles.map(text).join('\n').replaceAll('</style', '<\\/style')}</style>`,
  ].join('\n')
  const html = text(page)
    .replace(/\s*<script type="module"[^>]*><\/script>/, '')
    .replace(/\s*<link rel="(stylesheet|modulepreload)"[^>]*>/g, '')
  // Functions, because a replacement text would interpret `$`.
  return html
    .replace('<meta charset="utf-8" />', () => `<meta charset="utf-8" />\n${head}`)
    .replace('</body>', () => `<script type="module">${script}</script></body>`)
}

/** Adds the viewer to the files of the dashboard. */
export function capsuleViewer(): Plugin {
  return {
    name: 'capsule-viewer',
    apply: 'build',
    async generateBundle() {
      const result = await build({
        configFile: false,
        root: import.meta.dirname,
        base: './',
        logLevel: 'warn',
        publicDir: false,
        plugins: [vue()],
        define: { __VUE_OPTIONS_API__: false },
        build: {
          target: 'es2022',
          write: false,
          assetsInlineLimit: Number.MAX_SAFE_INTEGER,
          cssCodeSplit: false,
          modulePreload: false,
          rollupOptions: { input: NAME, output: { codeSplitting: false } },
        },
      })
      const outputs = Array.isArray(result) ? result : [result]
      const html = inline(outputs.flatMap((output) => ('output' in output ? (output.output as BuiltFile[]) : [])))
      this.emitFile({ type: 'asset', fileName: NAME, source: html })
    },
  }
}

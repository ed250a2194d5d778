import { copyFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Plugin } from 'vite'

/** Files of Swagger UI that the page loads, and its licence. */
const LIBRARY = ['swagger-ui-bundle.js', 'swagger-ui-bundle.js.LICENSE.txt', 'swagger-ui.css', 'LICENSE', 'NOTICE']
const PAGE = ['index.html', 'api-docs.css', 'api-docs.js']

/** Writes the API browser to the folder `api-docs` of the dashboard; the hub serves it at `/api/docs/`. */
export function apiDocs(): Plugin {
  let [root, out] = ['.', 'dist']
  return {
    name: 'api-docs',
    apply: 'build',
    configResolved(config) {
      root = config.root
      out = join(config.root, config.build.outDir, 'api-docs')
    },
    closeBundle() {
      mkdirSync(out, { recursive: true })
      for (const file of LIBRARY) copyFileSync(join(root, 'node_modules/swagger-ui-dist', file), join(out, file))
      for (const file of PAGE) copyFileSync(join(root, 'api-docs', file), join(out, file))
    },
  }
}

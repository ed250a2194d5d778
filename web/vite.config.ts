import vue from '@vitejs/plugin-vue'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'
import type { Plugin } from 'vite'
import { defineConfig } from 'vitest/config'
import { apiDocs } from './api-docs/plugin.ts'
import { documentation } from './docs/plugin.ts'
import { capsuleViewer } from './viewer.config.ts'

/** Compressed copies beside the files, so that the hub never compresses the dashboard. */
function precompress(): Plugin {
  const each = (folder: string, visit: (path: string) => void) => {
    for (const name of readdirSync(folder)) {
      const path = join(folder, name)
      if (statSync(path).isDirectory()) each(path, visit)
      else visit(path)
    }
  }
  let folder = 'dist'
  return {
    name: 'precompress',
    apply: 'build',
    configResolved(config) {
      folder = join(config.root, config.build.outDir)
    },
    closeBundle() {
      each(folder, (path) => {
        if (!/\.(js|css|svg|json|html)$/.test(path)) return
        const bytes = readFileSync(path)
        writeFileSync(`${path}.br`, brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }))
        writeFileSync(`${path}.gz`, gzipSync(bytes, { level: 9 }))
      })
    },
  }
}

const hub = process.env.DEV_HUB ?? 'http://127.0.0.1:8000'

/** Modules of the first load, beside the pages; overlays are loaded when they open. */
const OVERLAYS = 'Combobox|Dialog|Menu|Popover|Select|Tooltip'
const FIRST_LOAD = new RegExp(`src/(components/(TopBar|base/(?!Base(${OVERLAYS})))|lib|i18n|charts/(canvas|axes)|locales/en(?!/lazy))`)

export default defineConfig({
  // URLs relative to the files: the hub may be mounted below any path.
  base: './',
  plugins: [vue(), documentation(), apiDocs(), capsuleViewer(), precompress()],
  // All components use `<script setup>`.
  define: { __VUE_OPTIONS_API__: false },
  build: {
    target: 'es2022',
    chunkSizeWarningLimit: 300,
    // A script of its entry alone: with two pages, the polyfill would be a file of the first load.
    modulePreload: { polyfill: false },
    rollupOptions: {
      // The dashboard, and the public status page, which shares no module with it.
      input: ['index.html', 'status.html'],
      output: {
        codeSplitting: {
          // Modules of all pages in few files: each of them alone would be a file of some hundred bytes.
          groups: [
            { name: 'vendor', test: /node_modules\/(@vue|vue|vue-router|@lucide\/vue\/dist\/esm\/(?!icons)|@tanstack|openapi-fetch)/ },
            // An icon of one page only comes with this page.
            { name: 'vendor', test: /node_modules\/@lucide/, minShareCount: 2 },
            {
              name: 'base',
              test: FIRST_LOAD,
            },
          ],
        },
      },
    },
  },
  server: {
    port: 5173,
    proxy: { '/api': { target: hub, ws: true, changeOrigin: true, rewriteWsOrigin: true }, '/healthz': hub },
  },
  test: { environment: 'happy-dom', include: ['{src,docs}/**/*.spec.ts'] },
})

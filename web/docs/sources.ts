import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** Reads files of the repository; `undefined` for a missing file, and empty for a folder. */
export function readSources(repository: string): (path: string) => string | undefined {
  return (path) => {
    const file = join(repository, path)
    const stat = statSync(file, { throwIfNoEntry: false })
    if (!stat) return undefined
    return stat.isDirectory() ? '' : readFileSync(file, 'utf8')
  }
}

// Capsule that was opened in the browser. Nothing is sent anywhere.
import { readContent, readSections, type Section } from './container'
import { type CapsuleDocument, readDocument } from './document'
import { invalid } from './errors'
import { MAX_DOCUMENT_BYTES, MAX_SECTION_BYTES } from './limits'
import { ProcessHistory } from './processes'
import { CapsuleColumns, readSeries } from './series'

export class Capsule {
  private constructor(
    readonly document: CapsuleDocument,
    /** Size of the file. */
    readonly size: number,
    private readonly sections: Section[],
  ) {}

  /** Verifies a file; series and processes are decoded when they are shown. */
  static async open(file: Uint8Array): Promise<Capsule> {
    const [first, ...sections] = readSections(file)
    const document = readDocument(await readContent(first!, MAX_DOCUMENT_BYTES))
    if (sections.length !== 2 * document.hosts.length) throw invalid('number of sections')
    return new Capsule(document, file.length, sections)
  }

  /** Series of the host at a position. */
  async columns(index: number): Promise<CapsuleColumns> {
    const host = this.document.hosts[index]!
    const content = await readContent(this.sections[2 * index]!, MAX_SECTION_BYTES)
    return new CapsuleColumns(readSeries(content, host.rows, host.series.length), host, this.document.to_ms)
  }

  /** Processes of the host at a position. */
  async processes(index: number): Promise<ProcessHistory> {
    const content = await readContent(this.sections[2 * index + 1]!, MAX_SECTION_BYTES)
    return new ProcessHistory(content, this.document.hosts[index]!.process_rows)
  }
}

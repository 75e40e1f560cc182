/** What closeout leaves behind. */
import type { StoredDocument } from './step.ts';

export interface ArchivedReport {
  readonly json: StoredDocument;
  readonly markdown: StoredDocument;
  readonly html: StoredDocument;
}

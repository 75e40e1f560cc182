import type { StoredDocument } from '../contract/evidence/step.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { sha256 } from '../archive/canonical.ts';
import { type ObjectMap, parseObjectMap } from '../postgres/catalog/object-map.ts';
import type { RunStore } from './run-store.ts';

/** The text of a document this run has stored. @throws StepError `StateUnexpected` when it is gone or not what was stored */
export async function readStoredText(
  { store }: RunStore,
  document: StoredDocument,
  signal: AbortSignal,
): Promise<string> {
  const content = await store.get(document.uri.slice(store.uri('').length), signal);
  if (content === undefined || sha256(content) !== document.sha256) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `${document.uri} is ${content === undefined ? 'no longer in the store' : 'not what was stored'}`,
      { uri: document.uri },
    );
  }
  return Buffer.from(content).toString('utf8');
}

export const readStoredObjectMap = async (
  run: RunStore,
  document: StoredDocument,
  signal: AbortSignal,
): Promise<ObjectMap> => parseObjectMap(await readStoredText(run, document, signal));

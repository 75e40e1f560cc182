import type { BackupManifest } from '../contract/evidence/backup.ts';
import type { FoundObject } from './object-store.ts';

type Owner = Pick<BackupManifest, 'runId' | 'service' | 'step'>;

/** What is noted on each object of a backup, so that one can tell whose it is without decrypting it. */
export const ownership = ({ runId, service, step }: Owner): Record<string, string> => ({
  'run-id': headerText(runId),
  service: headerText(service),
  step: headerText(step),
});

/** HTTP headers are ASCII. */
const headerText = (text: string): string => text.replaceAll(/[^\x21-\x7e]/g, encodeURIComponent);

/**
 * Whose object this is, in words, where it is noted that it is not the one its key says (`.../<service>/<run>/<step>.<kind>`).
 * Undefined where all fits or nothing is noted.
 */
export function describeOwner(object: FoundObject | undefined): string | undefined {
  const { 'run-id': runId, service, step } = object?.metadata ?? {};
  if (object === undefined || runId === undefined || step === undefined) return undefined;
  // A step's id may have a slash in it, and then so has the key.
  if (headerText(`/${object.key}`).includes(`/${runId}/${step}.`)) return undefined;
  return `it was replaced by another run's: it is that of run ${runId}${service === undefined ? '' : ` of ${service}`}, step ${step}`;
}

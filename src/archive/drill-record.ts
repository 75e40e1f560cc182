import { drillFolder } from './backup-names.ts';
import type { DrillRecord, RecordDrillInput } from '../contract/evidence/drill.ts';

/** `<prefix>/<service>/drills/<time>-<end of the run id>.json`: recorded again, it is replaced. */
export const drillKey = ({ profile, run, startedAt }: RecordDrillInput): string =>
  `${drillFolder(profile.backup, run.service)}/${startedAt.replaceAll(/[-:]|\.\d+/g, '')}-${run.runId.slice(-12)}.json`;

/** @param uri of the record itself */
export function drillRecord(input: RecordDrillInput, endedAt: string, uri: string): DrillRecord {
  const { run, manifest, startedAt, result } = input;
  const { backup } = manifest;
  const passed = result.kind === 'passed' ? result.restore.restored : null;
  return {
    format: 'migration-runbook/drill/1',
    service: run.service,
    runId: run.runId,
    requestedBy: run.requestedBy,
    startedAt,
    endedAt,
    backup: {
      uri: backup.uri,
      capturedAt: backup.capturedAt,
      databaseBytes: backup.database.sizeBytes,
      dumpBytes: backup.dumpBytes,
    },
    outcome: result.kind,
    why: result.kind === 'failed' ? result.why : null,
    milliseconds: passed?.milliseconds ?? null,
    restored: passed,
    uri,
  };
}

/** Activities of a drill that answer as told; what the real ones do is tested in `integration/`. */
import type { DrillActivities } from '../../src/contract/activities.ts';
import type { BackupManifest } from '../../src/contract/evidence/backup.ts';
import type { DrillRecord, DrillRestore, PreparedDrill, RecordDrillInput } from '../../src/contract/evidence/drill.ts';
import { profile } from './scripted-activities.ts';

export const manifest = {
  format: 'migration-runbook/backup/1',
  service: 'whisper-transcriber',
  releaseTag: 'v1.0.0',
  runId: 'run-of-the-backup',
  step: 'backup.capture',
  backup: { uri: 's3://backups/backup.capture.dump.zst.age', capturedAt: '2026-11-22T20:00:00.000Z' },
} as unknown as BackupManifest;

const restored = { database: 'whisper_drill_1', restored: { milliseconds: 1000 } } as unknown as DrillRestore;

export interface DrillWorld {
  readonly calls: string[];
  readonly recorded: RecordDrillInput[];
  readonly activities: DrillActivities;
}

export function scriptedDrill(overrides: Partial<DrillActivities> = {}): DrillWorld {
  const calls: string[] = [];
  const recorded: RecordDrillInput[] = [];
  const answers: DrillActivities = {
    prepareDrill: async ({ service, requestedBy, workflowId, runId }): Promise<PreparedDrill> => ({
      profile,
      manifest,
      run: { runId, workflowId, service, requestedBy, releaseTag: 'v1.0.0', changeTicket: 'CHG-1' },
    }),
    restoreOnScratch: async () => restored,
    dropScratchDatabase: async () => ({ dropped: ['whisper_drill_1'] }),
    recordDrill: async (input): Promise<DrillRecord> => {
      recorded.push(input);
      return {
        format: 'migration-runbook/drill/1',
        service: input.run.service,
        runId: input.run.runId,
        requestedBy: input.run.requestedBy,
        startedAt: input.startedAt,
        endedAt: input.startedAt,
        backup: { uri: manifest.backup.uri, capturedAt: manifest.backup.capturedAt, databaseBytes: 1, dumpBytes: 1 },
        outcome: input.result.kind,
        why: input.result.kind === 'failed' ? input.result.why : null,
        milliseconds: input.result.kind === 'passed' ? 1000 : null,
        restored: null,
        uri: 's3://backups/drills/1.json',
      };
    },
    ...overrides,
  };
  const activities = Object.fromEntries(
    Object.entries(answers).map(([name, answer]) => [
      name,
      (input: never) => {
        calls.push(name);
        return answer(input);
      },
    ]),
  ) as unknown as DrillActivities;
  return { calls, recorded, activities };
}

/** A service with a backup, and its rehearsal's activities on the shared stack's scratch server. */
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { createBackupActivities } from '../../src/activities/backup/backup.ts';
import { createRehearsalScratchActivities } from '../../src/activities/dry-run/rehearsal-scratch.ts';
import { productionRoles } from '../../src/activities/dry-run/rehearsal-world.ts';
import type { BackupEvidence } from '../../src/contract/evidence/backup.ts';
import type { StepInput } from '../../src/contract/evidence/step.ts';
import type { RehearsalInput, RehearsalRestore } from '../../src/contract/evidence/rehearsal.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import type { ScratchWorld } from '../../src/rehearsal/scratch-world.ts';
import { testRun } from '../integration-context.ts';
import { query, type TestService } from '../postgres-service.ts';
import { useStack } from '../stack.ts';
import { never } from './archive-source.ts';
import { type ServiceProfile, writeServiceProfile } from './service-profile.ts';

const secrets = createSecretVault();

export const asActivity = <T>(work: () => Promise<T>, activityId = 'dry-run.rehearsal'): Promise<T> =>
  new MockActivityEnvironment({ heartbeatTimeoutMs: 4_000, activityId }, { logger: new DefaultLogger('ERROR') }).run(
    work,
  );

const activities = createRehearsalScratchActivities({ secrets });

export interface RehearsedService extends ServiceProfile {
  readonly step: StepInput;
  readonly backup: BackupEvidence;
  readonly input: RehearsalInput;
  /** The scratch server as a step of the run uses it. */
  readonly world: ScratchWorld;
  readonly restore: () => ReturnType<typeof activities.restoreForRehearsal>;
  readonly swap: (restore: RehearsalRestore) => ReturnType<typeof activities.rehearseSwap>;
  readonly drop: () => Promise<readonly string[]>;
  readonly fresh: typeof activities.checkFreshness;
  readonly roles: () => ReturnType<typeof productionRoles>;
  /** Databases and roles of the run that are on the scratch server. */
  readonly left: () => Promise<string[]>;
}

/** @param scratchUrl of the scratch server's administrator; default: its superuser */
export async function rehearsedService(
  profiles: string,
  production: TestService,
  scratchUrl?: string,
): Promise<RehearsedService> {
  const target = await writeServiceProfile(profiles, production);
  if (scratchUrl !== undefined) await writeFile(join(profiles, `${target.service}-scratch`), scratchUrl);
  const { scratch } = useStack().postgres;
  const { profile, service } = target;
  const step: StepInput = { run: { ...testRun, runId: randomUUID(), service }, profile };
  const backup = await asActivity(() =>
    createBackupActivities({ secrets }).captureBackup({ ...step, step: 'backup.capture' }),
  );
  const graph = {
    startRevisions: ['0002'],
    targetRevision: '0003',
    targetRevisions: ['0003'],
    path: [],
    downgrade: { kind: 'impossible', why: 'not asked for here' },
    risks: [],
    unknown: [],
  } as const;
  const input = { ...step, step: 'dry-run.rehearsal', graph, backup };
  return {
    ...target,
    step,
    backup,
    input,
    world: {
      url: scratchUrl ?? scratch.superuserUrl,
      runId: step.run.runId,
      step: 'dry-run.rehearsal',
      signal: never(),
      service,
      workflowId: step.run.workflowId,
      expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
    },
    restore: () => asActivity(() => activities.restoreForRehearsal(input)),
    swap: (restore) => asActivity(() => activities.rehearseSwap({ ...input, restore })),
    drop: async () => (await asActivity(() => activities.dropRehearsal(step))).dropped,
    fresh: (request) => asActivity(() => activities.checkFreshness(request)),
    roles: () => asActivity(() => productionRoles({ secrets }, step, never())),
    left: async () => {
      const rows = await query<{ name: string }>(
        scratch.superuserUrl,
        `SELECT datname AS name FROM pg_database WHERE starts_with(datname, $1)
         UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE starts_with(rolname, $1) ORDER BY 1`,
        [service],
      );
      return rows.map(({ name }) => name);
    },
  };
}

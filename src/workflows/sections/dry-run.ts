/** Section 4 of the document: migration dry run. */
import type { StagingEvidence } from '../../contract/evidence/dry-run.ts';
import type { DatabaseIdentity } from '../../contract/evidence/production.ts';
import type { GraphEvidence } from '../../contract/evidence/tooling.ts';
import type { MigrationRun } from '../run.ts';
import { TRIAL } from '../step-policies.ts';
import { ownSteps } from './own-steps.ts';

export interface DryRun {
  readonly staging: StagingEvidence;
}

export async function dryRun(run: MigrationRun, graph: GraphEvidence, production: DatabaseIdentity): Promise<DryRun> {
  const staging = await run.step('dry-run.staging', 'Upgrade staging, run the migration tests', TRIAL, (activities) =>
    activities.migrateStaging({ ...run.input(), graph, production }),
  );
  await run.step(
    'dry-run.critical-flows',
    'Boot the release on staging, exercise its critical flows',
    TRIAL,
    (activities) => activities.exerciseApplication(run.input()),
  );
  await run.step('dry-run.schema-diff', 'Schema before and after, archived', TRIAL, (activities) =>
    activities.diffSchema({ ...run.input(), staging }),
  );
  await ownSteps(run, 'dry-run');
  return { staging };
}

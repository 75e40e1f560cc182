import type { MigrationActivities } from '../contract/activities.ts';
import { createAccessActivities } from './preconditions/access.ts';
import { createAnnouncementActivities } from './announcements.ts';
import { upgradeProduction } from './apply/apply.ts';
import { countArrivals } from './recovery/arrivals.ts';
import { createBackupActivities } from './backup/backup.ts';
import { createCheckActivities } from './checks.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { createDrillActivities } from './backup/drill.ts';
import { createFenceActivities } from './apply/fence.ts';
import { readMigrationGraph } from './graph.ts';
import { readLease } from './preconditions/lease.ts';
import { createOwnStepActivities } from './own-steps.ts';
import { createPlanActivities } from './plan.ts';
import { createPreconditionActivities } from './preconditions/preconditions.ts';
import { evaluateProduction } from './recovery/recovery.ts';
import { createRehearsalScratchActivities } from './dry-run/rehearsal-scratch.ts';
import { rehearseMigration } from './dry-run/rehearsal-trial.ts';
import { archiveReport } from './report.ts';
import { createRestoreActivities } from './recovery/restore.ts';
import { rollBackProduction } from './recovery/rollback.ts';
import { compareRowsWithBackup } from './recovery/rolled-back-rows.ts';
import { createSchemaActivities } from './schema.ts';
import { createStagingActivities } from './dry-run/staging.ts';
import { createSwitchActivities } from './switches.ts';
import { createToolingActivities } from './tooling.ts';
import { createWayBackActivities } from './recovery/way-back.ts';

/** Every activity of a worker, by the contract's names. */
export function createActivities(deps: ActivityDependencies): MigrationActivities {
  return {
    ...createPreconditionActivities(deps),
    readLease: readLease(deps),
    ...createAccessActivities(deps),
    ...createAnnouncementActivities(deps),
    ...createSwitchActivities(deps),
    ...createFenceActivities(deps),
    ...createToolingActivities(deps),
    readMigrationGraph: readMigrationGraph(deps),
    ...createBackupActivities(deps),
    ...createPlanActivities(deps),
    ...createStagingActivities(deps),
    ...createRehearsalScratchActivities(deps),
    rehearseMigration: rehearseMigration(deps),
    ...createSchemaActivities(deps),
    ...createCheckActivities(deps),
    upgradeProduction: upgradeProduction(deps),
    evaluateProduction: evaluateProduction(deps),
    countArrivals: countArrivals(deps),
    rollBackProduction: rollBackProduction(deps),
    compareRowsWithBackup: compareRowsWithBackup(deps),
    ...createRestoreActivities(deps),
    ...createWayBackActivities(deps),
    ...createOwnStepActivities(deps),
    archiveReport: archiveReport(deps),
    ...createDrillActivities(deps),
  };
}

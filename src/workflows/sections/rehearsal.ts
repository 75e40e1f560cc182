/** Beyond the document: the upgrade and its undo, tried on a copy restored from this run's own backup. */
import type { BackupEvidence } from '../../contract/evidence/backup.ts';
import type { ProductionState } from '../../contract/evidence/production.ts';
import type { GraphEvidence } from '../../contract/evidence/tooling.ts';
import type { Rehearsal } from '../../contract/evidence/rehearsal.ts';
import { stepRefused } from '../failure.ts';
import { disposeOfScratch, oweScratch } from '../obligations.ts';
import type { MigrationRun } from '../run.ts';
import { LOOK, REHEARSAL, TRANSFER } from '../step-policies.ts';
import type { Tooling } from './tooling.ts';

export interface Rehearsed {
  readonly rehearsal: Rehearsal;
  /** Production as it was rehearsed: what it must still be when the upgrade starts. */
  readonly production: ProductionState;
}

const STEP = 'dry-run.rehearsal';

/**
 * Restore, trial, swap, each on databases of its own; then all of it is dropped. A rehearsal that fails refuses the run:
 * production has not been touched.
 */
export async function rehearse(run: MigrationRun, graph: GraphEvidence): Promise<Rehearsed> {
  const backup = run.state.latestBackup;
  if (backup === undefined) throw stepRefused('there is no backup to rehearse with');
  const production = await asBackedUp(run, backup);
  const step = run.state.nextStepId(STEP);
  const commands = graph.downgrade.kind === 'planned' ? graph.downgrade.commands.length : 0;
  run.state.looks = { upgrade: 2 + graph.path.length, rollback: 2 + commands };
  oweScratch(run);
  const input = { ...run.input(), step, graph, backup };
  const restore = await run.step(
    `${STEP}/restore`,
    'The backup on the scratch server, compared with its ledger',
    TRANSFER,
    (activities) => activities.restoreForRehearsal(input),
  );
  const trial = await run.step(
    `${STEP}/trial`,
    'Upgrade, smoke, deployed release, downgrade, compare, upgrade again, on copies',
    REHEARSAL,
    (activities) => activities.rehearseMigration({ ...input, restore }),
  );
  const tried = Date.now();
  const swap = await run.step(
    `${STEP}/swap`,
    'Restored copy swapped in for the upgraded one',
    REHEARSAL,
    (activities) => activities.rehearseSwap({ ...input, restore }),
  );
  const { uri, sha256, lsn, capturedAt, database } = backup;
  const rehearsal: Rehearsal = {
    restore,
    trial,
    swap,
    backup: { uri, sha256, lsn, capturedAt },
    databaseBytes: database.sizeBytes,
    // By the server's clock, as the gate and the window are.
    expiresAt: new Date(tried + run.profile.rehearsal.maximumAge).toISOString(),
  };
  run.state.rehearsal = rehearsal;
  run.judge(STEP, 'Verdict of the rehearsal', () => ({
    verdict: trial.verdict,
    upgradeMilliseconds: trial.upgrade.milliseconds,
    downgradeMilliseconds: trial.downgrade?.milliseconds ?? null,
    predictions: run.state.predictions,
    expiresAt: rehearsal.expiresAt,
  }));
  await disposeOfScratch(run, `${STEP}/drop`);
  return { rehearsal, production };
}

/**
 * What the rehearsal saw refutes what the source of a revision says: one that commits in its middle leaves a part when it is
 * stopped, rows among it, and then nothing is called unchanged by its objects alone.
 */
export function asSeen(tooling: Tooling, { rehearsal: { trial } }: Rehearsed): Tooling {
  const commits = new Set(trial.commits ?? []);
  const { graph } = tooling;
  const refuted = graph.path.filter(({ revision, transactional }) => commits.has(revision) && transactional === 'yes');
  if (refuted.length === 0) return tooling;
  return {
    ...tooling,
    graph: {
      ...graph,
      path: graph.path.map((entry) =>
        refuted.includes(entry)
          ? { ...entry, transactional: 'no', downgradeTransactional: 'no', outsideTransaction: 'anything' }
          : entry,
      ),
      risks: [
        ...graph.risks,
        ...refuted.map(
          ({ revision }) =>
            `revision ${revision} was seen to commit in its middle, which its source does not say (does env.py commit every statement?): interrupted, it is for a person to judge`,
        ),
      ],
    },
  };
}

/** What was backed up is what production is: the object map that drift is told by is production's own. */
async function asBackedUp(run: MigrationRun, backup: BackupEvidence): Promise<ProductionState> {
  const began = Date.now();
  const state = await run.step(`${STEP}/production`, 'Production is what was backed up', LOOK, (activities) =>
    activities.inspectProduction(run.input()),
  );
  run.state.look = Date.now() - began;
  run.judge(`${STEP}/backup`, 'The backup holds production’s objects and revisions of now', () => {
    if (state.objectMapDigest !== backup.objectMapDigest || state.versionRows.join() !== backup.versionRows.join()) {
      throw stepRefused(
        'production’s objects or revisions have changed since the backup was taken: see who changes them, then start a new run',
      );
    }
    return { objectMapDigest: state.objectMapDigest, versionRows: state.versionRows };
  });
  return state;
}

/**
 * Does what was rehearsed still hold: same commit, young enough, production not grown beyond it?
 *
 * @returns why it does not; empty = it holds
 * @throws when the tag names another commit: what was reviewed is not what would be run
 */
export async function expiryOf(
  run: MigrationRun,
  { rehearsal }: Rehearsed,
  commit: string,
): Promise<readonly string[]> {
  const { databaseBytes, expiresAt } = rehearsal;
  const fresh = await run.step('apply.window/rehearsal', 'The rehearsal still holds', LOOK, (activities) =>
    activities.checkFreshness({ ...run.input(), commit, rehearsed: { databaseBytes } }),
  );
  if (fresh.commit !== commit) {
    return run.judge('apply.window/commit', 'The tag names what was reviewed', () => {
      throw stepRefused(
        `the tag ${run.request.releaseTag} names ${fresh.commit.slice(0, 12)} now; reviewed, rehearsed and approved was ${commit.slice(0, 12)}: start a new run`,
      );
    });
  }
  // By the clock it was given by: a worker's own may go slow. A time nobody can read has passed.
  const isOld = !(Date.parse(expiresAt) > Date.now());
  return [...(isOld ? [`it holds until ${expiresAt} only`] : []), ...fresh.expired];
}

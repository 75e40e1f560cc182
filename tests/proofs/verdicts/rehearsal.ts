/** One chain's graph and rehearsal by the real code, and what of it is not as expected. */
import { withClient } from '../../../scripts/stack/postgres-cluster.ts';
import { createBackupActivities } from '../../../src/activities/backup/backup.ts';
import { readMigrationGraph } from '../../../src/activities/graph.ts';
import { secretAccess } from '../../../src/activities/integration-context.ts';
import { createRehearsalScratchActivities } from '../../../src/activities/dry-run/rehearsal-scratch.ts';
import { rehearseMigration } from '../../../src/activities/dry-run/rehearsal-trial.ts';
import { type ReleaseAlembic, releaseAlembic } from '../../../src/activities/release-alembic.ts';
import type { GraphEvidence } from '../../../src/contract/evidence/tooling.ts';
import { rollbackOffer } from '../../../src/contract/rehearsal-offer.ts';
import type { LostValues, RehearsalTrial, RehearsalVerdict } from '../../../src/contract/evidence/rehearsal.ts';
import { withConnection } from '../../../src/postgres/connection.ts';
import { inDatabase } from '../../../src/postgres/connection-url.ts';
import type { DatabaseContents } from '../../../src/postgres/contents/contents.ts';
import { markDatabase } from '../../../src/postgres/restore/database-mark.ts';
import { rehearsalEnvironment } from '../../../src/rehearsal/environment.ts';
import { readImitatedRole } from '../../../src/rehearsal/imitated-role.ts';
import { rehearsalTarget } from '../../../src/rehearsal/login.ts';
import { dropRehearsal, withTrialCopy } from '../../../src/rehearsal/scratch.ts';
import type { ScratchWorld } from '../../../src/rehearsal/scratch-world.ts';
import { rehearse } from '../../../src/rehearsal/trial.ts';
import type { TrialDowngrade, TrialResult } from '../../../src/rehearsal/trial-request.ts';
import type { Chain, Expected } from '../../fixtures/verdicts/chain.ts';
import { asActivity, dependencies, ROLES, type Service, signal, type World } from './world.ts';

export type Graph =
  | { readonly kind: 'read'; readonly evidence: GraphEvidence }
  | { readonly kind: 'refused'; readonly why: string };

export async function readGraph(world: World, { run, profile, chain }: Service): Promise<Graph> {
  const activity = readMigrationGraph(dependencies(world));
  try {
    const input = { run, profile, targetRevision: chain.target };
    return { kind: 'read', evidence: await asActivity(() => activity(input)) };
  } catch (error) {
    if ((error as { readonly type?: string }).type !== 'StepRefused') throw error;
    return { kind: 'refused', why: (error as Error).message };
  }
}

/** What a rehearsal comes to, as far as production can bear it out. */
export type Outcome =
  | Extract<TrialResult, { kind: 'upgrade-failed' }>
  | ({ readonly kind: 'rehearsed' } & Pick<RehearsalTrial, 'verdict' | 'dropped'>);

/** As a run does it: the backup through the object store, restored on the scratch server, tried there. */
export async function rehearseByActivities(world: World, service: Service, graph: GraphEvidence): Promise<Outcome> {
  const deps = dependencies(world);
  const backups = createBackupActivities(deps);
  const rehearsals = createRehearsalScratchActivities(deps);
  const step = { run: service.run, profile: service.profile };
  const backup = await asActivity(() => backups.captureBackup({ ...step, step: 'backup.capture' }));
  const input = { ...step, step: 'dry-run.rehearsal', graph, backup };
  try {
    const restore = await asActivity(() => rehearsals.restoreForRehearsal(input));
    const trial = await asActivity(() => rehearseMigration(deps)({ ...input, restore }));
    return { kind: 'rehearsed', ...trial };
  } finally {
    await asActivity(() => rehearsals.dropRehearsal(step));
  }
}

/**
 * The same without the archive, to save time: production's database is copied as it is, on its own server, and what was read
 * from it stands for the backup's ledger.
 *
 * @param pristine database
 */
export async function rehearseOnCopy(
  world: World,
  service: Service,
  graph: GraphEvidence,
  { pristine, recorded }: { readonly pristine: string; readonly recorded: DatabaseContents },
): Promise<Outcome> {
  const { run, profile } = service;
  const deps = dependencies(world);
  const scratch = scratchWorldOf(world, service);
  const release = await releaseAlembic(deps, service, { signal, progress: () => undefined, attempt: 1 });
  return withTrialCopy(scratch, { of: pristine, purpose: 'trial' }, async (copy) => {
    const migrator = await withConnection(world.url('backup', service.database), scratch, (client) =>
      readImitatedRole(client, { part: 'migrator', name: ROLES.migrator }),
    );
    const login = await rehearsalTarget(scratch, { copy: copy.database, as: migrator });
    const access = secretAccess(deps, service, signal);
    const { migration } = await rehearsalEnvironment(profile, release.checkout, login.target, access);
    return rehearse({
      alembic: { ...release, ...profile.alembic, ...pathsOf(release), environment: migration },
      copy,
      pristine: inDatabase(copy, pristine),
      plan: { ...graph, downgrade: plannedDowngrade(graph) },
      recorded,
      smoke: [],
      jobs: 1,
      session: { runId: run.runId, step: scratch.step, signal },
      redactor: deps.secrets.redactor,
    });
  });
}

/** The paths in the checkout, in place of the profile's relative ones. */
const pathsOf = ({
  python,
  directory,
  config,
}: ReleaseAlembic): Pick<ReleaseAlembic, 'python' | 'directory' | 'config'> => ({
  python,
  directory,
  config,
});

function scratchWorldOf({ server }: World, { run }: Service): ScratchWorld {
  const { runId, service, workflowId } = run;
  const expiresAt = '2099-01-01T00:00:00.000Z';
  return { url: server.superuserUrl, runId, service, workflowId, step: 'dry-run.rehearsal', signal, expiresAt };
}

/** Copies production's database as it is, nobody being connected to it, and marks the copy as the run's. */
export async function copyPristine(world: World, service: Service, name: string): Promise<void> {
  const { runId, service: of, workflowId, expiresAt } = scratchWorldOf(world, service);
  await withClient(world.server.superuserUrl, async (client) => {
    await client.query(`CREATE DATABASE ${name} OWNER ${ROLES.owner} TEMPLATE ${service.database} STRATEGY file_copy`);
    await markDatabase(client, name, { kind: 'scratch', runId, service: of, workflowId, expiresAt, note: 'Pristine.' });
  });
}

/** The pristine copy too, and the login. */
export const dropCopies = (world: World, service: Service): Promise<unknown> =>
  dropRehearsal(scratchWorldOf(world, service));

const plannedDowngrade = ({ downgrade, startRevisions }: GraphEvidence): TrialDowngrade =>
  downgrade.kind === 'impossible'
    ? downgrade
    : {
        kind: 'planned',
        commands: downgrade.commands.map((argument, index) => ({
          argument,
          rowsAfter: index === downgrade.commands.length - 1 ? startRevisions : null,
        })),
      };

// ---- as expected? -----------------------------------------------------------------------------------------------------

/** What is not as the table says; empty = all is. */
export function unexpected({ expected, back }: Chain, graph: Graph, trial: Outcome | null): readonly string[] {
  if (graph.kind === 'refused') {
    if (expected.kind !== 'refused') return [`refused: ${graph.why}`];
    return expected.says
      .filter((text) => !graph.why.includes(text))
      .map((text) => `the refusal does not name ${text}: ${graph.why}`);
  }
  if (expected.kind === 'refused' || trial === null) return ['was not refused'];
  const planned = graph.evidence.downgrade;
  const commands = planned.kind === 'planned' ? planned.commands : [planned.why];
  return [
    ...(back === undefined || back.join() === commands.join() ? [] : [`planned downgrade is ${commands.join(', ')}`]),
    ...(trial.kind === 'upgrade-failed' ? failureFindings(expected, trial) : verdictFindings(expected, trial.verdict)),
  ];
}

function failureFindings(expected: Expected, failed: Extract<Outcome, { kind: 'upgrade-failed' }>): string[] {
  if (expected.kind !== 'upgrade-failed') return [`the upgrade failed: ${failed.why}`];
  return [
    ...(failed.revision === expected.revision ? [] : [`failed at revision ${failed.revision}`]),
    ...(failed.why.includes(expected.says) ? [] : [`"${expected.says}" is not in: ${failed.why}`]),
    ...listFindings('left behind', expected.leaves, failed.leaves),
  ];
}

function verdictFindings(expected: Expected, verdict: RehearsalVerdict): string[] {
  if (expected.kind === 'refused' || expected.kind === 'upgrade-failed' || expected.kind !== verdict.kind) {
    return [`verdict: ${verdictText(verdict)}`];
  }
  const offer = rollbackOffer(verdict);
  const findings = offer.rollback === expected.rollback ? [] : [`recovery offered: ${offer.rollback}`];
  switch (verdict.kind) {
    case 'lossless':
      return findings;
    case 'lossy': {
      const wanted = expected as Extract<Expected, { kind: 'lossy' }>;
      const same = wanted.lost.map(lossText).toSorted().join() === verdict.lost.map(lossText).toSorted().join();
      return [
        ...findings,
        ...(same ? [] : [`lost: ${verdict.lost.map(lossText).join(', ')}`]),
        ...listFindings('left behind', wanted.objects, verdict.objects),
      ];
    }
    case 'leftovers':
      return [
        ...findings,
        ...listFindings('left behind', (expected as { objects: readonly string[] }).objects, verdict.objects),
      ];
    case 'fails': {
      const wanted = expected as Extract<Expected, { kind: 'fails' }>;
      return [
        ...findings,
        ...(verdict.where.includes(wanted.where) ? [] : [`fails at: ${verdict.where}`]),
        ...(verdict.why.includes(wanted.why) ? [] : [`"${wanted.why}" is not in: ${verdict.why}`]),
      ];
    }
    case 'impossible': {
      const { why } = expected as Extract<Expected, { kind: 'impossible' }>;
      return [...findings, ...(verdict.why.includes(why) ? [] : [`"${why}" is not in: ${verdict.why}`])];
    }
  }
}

/** Every text in an entry of its own, and no entry without one. */
function listFindings(what: string, wanted: readonly string[], found: readonly string[]): string[] {
  const missing = wanted.filter((text) => !found.some((entry) => entry.includes(text)));
  const beyond = found.filter((entry) => !wanted.some((text) => entry.includes(text)));
  return [
    ...missing.map((text) => `${what} should be ${text}`),
    ...beyond.map((entry) => `${what}, unexpected: ${entry}`),
  ];
}

const lossText = ({ table, column, values }: LostValues): string =>
  `${table}${column === null ? '' : `.${column}`}: ${values}`;

export function verdictText(verdict: RehearsalVerdict): string {
  switch (verdict.kind) {
    case 'lossless':
      return verdict.kind;
    case 'lossy':
      return `lossy (${[...verdict.lost.map(lossText), ...verdict.objects].join('; ')})`;
    case 'leftovers':
      return `leftovers (${verdict.objects.join('; ')})`;
    case 'fails':
      return `fails (${verdict.where}: ${verdict.why.slice(0, 200)})`;
    case 'impossible':
      return `impossible (${verdict.why})`;
  }
}

/** One chain's graph and rehearsal by the real code, and what of it is not as expected. */
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { withClient } from '../../../scripts/stack/postgres-cluster.ts';
import { readMigrationGraph } from '../../../src/activities/graph.ts';
import type { ReleaseAlembic } from '../../../src/activities/release-alembic.ts';
import type { GraphEvidence } from '../../../src/contract/evidence.ts';
import { rollbackOffer } from '../../../src/contract/rehearsal-offer.ts';
import type { LostValues, RehearsalVerdict } from '../../../src/contract/rehearsal.ts';
import { type ConnectionTarget, parseConnectionUrl } from '../../../src/postgres/connection-url.ts';
import type { DatabaseContents } from '../../../src/postgres/contents/contents.ts';
import { rehearse } from '../../../src/rehearsal/trial.ts';
import type { TrialResult } from '../../../src/rehearsal/trial-request.ts';
import type { Chain, Expected } from '../../fixtures/verdicts/chain.ts';
import { alembicOn } from './production.ts';
import { dependencies, redactor, ROLES, type Service, signal, type World } from './world.ts';

export type Graph =
  | { readonly kind: 'read'; readonly evidence: GraphEvidence }
  | { readonly kind: 'refused'; readonly why: string };

export async function readGraph(world: World, { run, profile, chain }: Service): Promise<Graph> {
  const environment = new MockActivityEnvironment(
    { heartbeatTimeoutMs: 4_000 },
    { logger: new DefaultLogger('ERROR') },
  );
  const activity = readMigrationGraph(dependencies(world));
  try {
    const input = { run, profile, targetRevision: chain.target };
    return { kind: 'read', evidence: await environment.run(() => activity(input)) };
  } catch (error) {
    if ((error as { readonly type?: string }).type !== 'StepRefused') throw error;
    return { kind: 'refused', why: (error as Error).message };
  }
}

/** Copies production's database as it is; nobody is connected to it. */
export async function copyDatabase(world: World, from: string, to: string): Promise<void> {
  await withClient(world.server.superuserUrl, (client) =>
    client.query(`CREATE DATABASE ${to} OWNER ${ROLES.owner} TEMPLATE ${from} STRATEGY file_copy`),
  );
}

export async function dropDatabase(world: World, name: string): Promise<void> {
  await withClient(world.server.superuserUrl, (client) => client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`));
}

export interface Trial {
  readonly pristine: ConnectionTarget;
  readonly copy: ConnectionTarget;
  /** How Alembic reaches the copy. */
  readonly migrator: ConnectionTarget;
  readonly recorded: DatabaseContents;
}

export function tryChain(
  release: ReleaseAlembic,
  service: Service,
  graph: GraphEvidence,
  { pristine, copy, migrator, recorded }: Trial,
): Promise<TrialResult> {
  const { alembic } = service.profile;
  const rehearsed = { ...release, environment: { ...release.environment, ...service.rehearsalEnvironment } };
  const { python, directory, config, environment } = alembicOn(rehearsed, service, migrator, undefined);
  return rehearse({
    alembic: { ...alembic, python, directory, config, environment },
    copy,
    pristine,
    plan: { ...graph, downgrade: plannedDowngrade(graph) },
    recorded,
    smoke: [],
    jobs: 1,
    session: { runId: service.run.runId, step: 'dry-run.rehearsal', signal },
    redactor,
  });
}

const plannedDowngrade = ({ downgrade }: GraphEvidence): Parameters<typeof rehearse>[0]['plan']['downgrade'] =>
  downgrade.kind === 'impossible'
    ? downgrade
    : { kind: 'planned', commands: downgrade.commands.map((argument) => ({ argument, rowsAfter: null })) };

export const superuserIn = (world: World, database: string): ConnectionTarget =>
  parseConnectionUrl(world.url('superuser', database));

// ---- as expected? -----------------------------------------------------------------------------------------------------

/** What is not as the table says; empty = all is. */
export function unexpected({ expected, back }: Chain, graph: Graph, trial: TrialResult | null): readonly string[] {
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

function failureFindings(expected: Expected, failed: Extract<TrialResult, { kind: 'upgrade-failed' }>): string[] {
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

/** The upgrade and its planned way back in production: is what the rehearsal said of them true? */
import { withClient } from '../../../scripts/stack/postgres-cluster.ts';
import { createAccessActivities } from '../../../src/activities/preconditions/access.ts';
import { countArrivals } from '../../../src/activities/recovery/arrivals.ts';
import type { GraphEvidence } from '../../../src/contract/evidence/tooling.ts';
import type { DroppedObject, RehearsalTrial, RehearsalVerdict } from '../../../src/contract/evidence/rehearsal.ts';
import { withConnection } from '../../../src/postgres/connection.ts';
import { qualifiedName } from '../../../src/postgres/identifier.ts';
import { compareData } from '../../../src/rehearsal/data-difference.ts';
import { objectDifferences } from '../../../src/rehearsal/object-difference.ts';
import { judge } from '../../../src/rehearsal/verdict.ts';
import type { Chain } from '../../fixtures/verdicts/chain.ts';
import { differences, readProduction, rollBackProduction, type State, upgradeProduction } from './production.ts';
import { verdictText } from './rehearsal.ts';
import { asActivity, dependencies, type Service, signal, versionTableOf, type World } from './world.ts';

interface Rehearsed extends Pick<RehearsalTrial, 'verdict' | 'dropped'> {
  readonly before: State;
  /** Database. */
  readonly pristine: string;
}

/**
 * `lossless`: after upgrade and downgrade everything is as before. `lossy`, `leftovers`: what is lost and left is what was
 * said. Otherwise no rollback is offered, and none is tried.
 *
 * @returns what is not so
 */
export async function notBorneOut(
  world: World,
  service: Service,
  graph: GraphEvidence,
  { before, verdict, dropped, pristine }: Rehearsed,
): Promise<readonly string[]> {
  if (verdict.kind === 'fails' || verdict.kind === 'impossible' || graph.downgrade.kind === 'impossible') return [];
  await upgradeProduction(world, service, graph);
  if (differences(before, await readProduction(world, service, before)).length === 0) {
    return ["production's upgrade changed nothing: a way back from it proves nothing"];
  }
  const { arrives } = service.chain;
  if (arrives !== undefined) return afterArrivals(world, service, graph, { before, dropped, arrives });
  const failure = await rollBackProduction(world, service, graph.downgrade.commands);
  if (failure !== null) return [`production's rollback failed: ${failure}`];
  const after = await readProduction(world, service, before);
  if (verdict.kind === 'lossless') {
    return differences(before, after).map((line) => `after production's rollback: ${line}`);
  }
  const seen = verdictText(await judged(world, service, before, after, pristine));
  return seen === verdictText(verdict) ? [] : [`production's rollback: ${seen}`];
}

/** Production goes on being written to: what came in is counted, and the way back is what it is by then. */
async function afterArrivals(
  world: World,
  service: Service,
  graph: GraphEvidence,
  {
    before,
    dropped,
    arrives,
  }: Pick<Rehearsed, 'before' | 'dropped'> & { readonly arrives: NonNullable<Chain['arrives']> },
): Promise<readonly string[]> {
  await withClient(world.url('application', service.database), async (client) => {
    for (const statement of arrives.statements) await client.query(statement);
  });
  const { run, profile } = service;
  const deps = dependencies(world);
  const { inspectProduction } = createAccessActivities(deps);
  const state = await asActivity(() => inspectProduction({ run, profile }));
  const input = { run, profile, graph, before: state, dropped };
  const { objects } = await asActivity(() => countArrivals(deps)(input));
  const came = objects
    .filter(({ rows, found }) => found > rows)
    .map(({ table, column, rows, found }) => ({ table, column, rows: found - rows }));
  const findings = same(came, arrives.into) ? [] : [`arrivals counted: ${JSON.stringify(came)}`];

  const written = await readProduction(world, service, before);
  const failure = await rollBackProduction(world, service, plannedCommands(graph));
  const after = await readProduction(world, service, before);
  if (arrives.rollback === 'goes through') {
    if (failure !== null) return [...findings, `production's rollback failed: ${failure}`];
    return [...findings, ...differences(before, after).map((line) => `after production's rollback: ${line}`)];
  }
  if (failure === null) return [...findings, "production's rollback went through"];
  return [...findings, ...differences(written, after).map((line) => `after production's failed rollback: ${line}`)];
}

const same = (one: readonly DroppedObject[], other: readonly DroppedObject[]): boolean => {
  const form = (objects: readonly DroppedObject[]): string =>
    objects
      .map(({ table, column, rows }) => JSON.stringify([table, column, rows]))
      .toSorted()
      .join();
  return form(one) === form(other);
};

const plannedCommands = ({ downgrade }: GraphEvidence): readonly string[] =>
  downgrade.kind === 'planned' ? downgrade.commands : [];

async function judged(
  world: World,
  service: Service,
  before: State,
  after: State,
  pristine: string,
): Promise<RehearsalVerdict> {
  const { chain, database, run } = service;
  const { schema, table } = versionTableOf(chain);
  const session = { runId: run.runId, step: 'proof', signal };
  const data = await withConnection(world.url('superuser', pristine), session, (untouched) =>
    withConnection(world.url('superuser', database), session, (production) =>
      compareData(
        { pristine: untouched, tried: production, readers: { pristine: [], tried: [] } },
        before.contents,
        qualifiedName(schema, table),
        () => undefined,
      ),
    ),
  );
  const objects = objectDifferences(before.objects, after.objects);
  return judge({ downgrade: { kind: 'done', difference: { objects, lost: data.lost, beyond: data.beyond } } });
}

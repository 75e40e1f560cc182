/** The upgrade and its planned way back in production: is what the rehearsal said of them true? */
import type { ReleaseAlembic } from '../../../src/activities/release-alembic.ts';
import type { GraphEvidence } from '../../../src/contract/evidence.ts';
import { withConnection } from '../../../src/postgres/connection.ts';
import { qualifiedName } from '../../../src/postgres/identifier.ts';
import { compareData } from '../../../src/rehearsal/data-difference.ts';
import { objectDifferences } from '../../../src/rehearsal/object-difference.ts';
import type { TrialResult } from '../../../src/rehearsal/trial-request.ts';
import { judge } from '../../../src/rehearsal/verdict.ts';
import { differences, readProduction, rollBackProduction, type State, upgradeProduction } from './production.ts';
import { verdictText } from './rehearsal.ts';
import { type Service, signal, versionTableOf, type World } from './world.ts';

interface Rehearsal {
  readonly before: State;
  readonly trial: Extract<TrialResult, { kind: 'rehearsed' }>;
  /** Database. */
  readonly pristine: string;
}

/**
 * `lossless`: after upgrade and downgrade everything is as before. `lossy`, `leftovers`: what is lost and left is what was
 * said. Otherwise no rollback is offered, and none is tried.
 *
 * @returns what is not so
 */
export async function bornOut(
  world: World,
  release: ReleaseAlembic,
  service: Service,
  graph: GraphEvidence,
  { before, trial, pristine }: Rehearsal,
): Promise<readonly string[]> {
  const { verdict } = trial;
  if (verdict.kind === 'fails' || verdict.kind === 'impossible' || graph.downgrade.kind === 'impossible') return [];
  await upgradeProduction(world, release, service, graph);
  if (differences(before, await readProduction(world, service, before)).length === 0) {
    return ["production's upgrade changed nothing: a way back from it proves nothing"];
  }
  const failure = await rollBackProduction(world, release, service, graph.downgrade.commands);
  if (failure !== null) return [`production's rollback failed: ${failure}`];
  const after = await readProduction(world, service, before);
  if (verdict.kind === 'lossless') {
    return differences(before, after).map((line) => `after production's rollback: ${line}`);
  }
  const seen = verdictText(await judged(world, service, before, after, pristine));
  return seen === verdictText(verdict) ? [] : [`production's rollback: ${seen}`];
}

async function judged(world: World, service: Service, before: State, after: State, pristine: string) {
  const { chain, database, run } = service;
  const { schema, table } = versionTableOf(chain);
  const session = { runId: run.runId, step: 'proof', signal };
  const data = await withConnection(world.url('superuser', pristine), session, (untouched) =>
    withConnection(world.url('superuser', database), session, (production) =>
      compareData(
        { pristine: untouched, tried: production, readers: [] },
        before.contents,
        qualifiedName(schema, table),
        () => undefined,
      ),
    ),
  );
  const objects = objectDifferences(before.objects, after.objects);
  return judge({ downgrade: { kind: 'done', difference: { objects, lost: data.lost, beyond: data.beyond } } });
}

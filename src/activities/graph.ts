import { downgradePlan } from '../alembic/downgrade-plan.ts';
import { resolveTarget, unknownRevisions } from '../alembic/graph.ts';
import { rowsAlongPath, upgradePath } from '../alembic/upgrade-path.ts';
import { readVersion } from '../alembic/version-table.ts';
import type { ToolingActivities } from '../contract/activities.ts';
import { refusal } from '../contract/errors.ts';
import type { GraphEvidence, GraphInput } from '../contract/evidence.ts';
import type { AlembicRevision } from '../contract/graph.ts';
import { withConnection } from '../postgres/connection.ts';
import { runStep } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { releaseAlembic, releaseGraph } from './release-alembic.ts';

/**
 * What the release would do to production: the ordered revisions from its version rows to the target, the way back, and
 * what is risky about them.
 */
export const readMigrationGraph =
  (deps: ActivityDependencies): ToolingActivities['readMigrationGraph'] =>
  (input) =>
    runStep(deps.secrets, async (tools) => {
      const release = await releaseAlembic(deps, input, tools);
      const graph = await releaseGraph(deps, release, tools.signal);
      const startRevisions = await productionRevisions(deps, input, tools.signal);
      const unknown = unknownRevisions(graph, startRevisions);
      const staging = unknownRevisions(graph, await stagingRevisions(deps, input, tools.signal));
      const target = resolveTarget(graph, input.targetRevision);
      const findings = [
        ...(unknown.length > 0
          ? [
              `production stands at ${unknown.join(', ')}, which ${input.run.releaseTag} does not know: is it an older release than the deployed one?`,
            ]
          : []),
        ...(staging.length > 0
          ? [
              `staging stands at ${staging.join(', ')}, which ${input.run.releaseTag} does not know: another release was tried there. Refresh staging from production, or downgrade it with that release's own code (alembic downgrade ${startRevisions.join(' ') || 'base'})`,
            ]
          : []),
        ...(target.kind === 'refused' ? [target.message] : []),
      ];
      if (findings.length > 0 || target.kind === 'refused') throw refusal(findings);

      const path = upgradePath(graph, startRevisions, target.revision);
      const end = rowsAlongPath(startRevisions, path).at(-1) ?? startRevisions;
      const back = downgradePlan(graph, end, startRevisions);
      const evidence: GraphEvidence = {
        startRevisions,
        targetRevision: target.revision,
        targetRevisions: [target.revision],
        unknown: [],
        path,
        downgrade:
          back.kind === 'planned'
            ? { kind: 'planned', commands: back.commands.map(({ argument }) => argument) }
            : { kind: 'impossible', why: back.why },
        risks: path.flatMap(risksOf),
      };
      return evidence;
    });

/** Staging's version rows; whatever else is wrong with staging its own step says. */
async function stagingRevisions(
  { secrets }: ActivityDependencies,
  { run, profile }: GraphInput,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const url = await secrets.resolve(profile.databases.staging.migrator, profile, signal);
  const version = await withConnection(url, { runId: run.runId, step: 'tooling.graph', signal }, (client) =>
    readVersion(client, profile.alembic.versionTable),
  );
  return version.kind === 'versioned' ? version.rows : [];
}

async function productionRevisions(
  { secrets }: ActivityDependencies,
  { run, profile }: GraphInput,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const url = await secrets.resolve(profile.databases.production.backup, profile, signal);
  const version = await withConnection(url, { runId: run.runId, step: 'tooling.graph', signal }, (client) =>
    readVersion(client, profile.alembic.versionTable),
  );
  switch (version.kind) {
    case 'versioned':
      return version.rows;
    case 'unversioned-empty':
      return [];
    case 'unversioned-full': {
      const { schema, table } = profile.alembic.versionTable;
      throw refusal([
        `production has tables (${version.tables.join(', ')}) but no version table ${schema}.${table}: name the right one as alembic.versionTable in the profile, or have the owners stamp the database with the revision it is at`,
      ]);
    }
  }
}

const risksOf = ({ revision, transactional, outsideTransaction, downgrade }: AlembicRevision): readonly string[] => [
  ...(transactional === 'no'
    ? [`revision ${revision} commits in its middle: a failure inside it takes back only a part`]
    : []),
  ...(outsideTransaction === 'anything' && transactional === 'no'
    ? [`revision ${revision} may change rows outside a transaction: interrupted, it is for a person to judge`]
    : []),
  ...(transactional === 'unknown'
    ? [`revision ${revision}: it could not be told whether it commits in its middle`]
    : []),
  ...(downgrade === 'absent' ? [`revision ${revision} has no downgrade`] : []),
  ...(downgrade === 'raises' ? [`the downgrade of revision ${revision} raises`] : []),
  ...(downgrade === 'empty' ? [`the downgrade of revision ${revision} does nothing`] : []),
];

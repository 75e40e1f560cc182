import { downgradePlan } from '../alembic/downgrade-plan.ts';
import { ancestorsOf, overlappingRows, resolveTarget, revisionsById, unknownRevisions } from '../alembic/graph.ts';
import { hiddenUnknowns, isHiddenGraph } from '../alembic/hidden-graph.ts';
import { rowsAtTarget } from '../alembic/reconcile.ts';
import { upgradePaths } from '../alembic/upgrade-path.ts';
import { readVersion } from '../alembic/version-table.ts';
import type { ToolingActivities } from '../contract/activities.ts';
import { refusal } from '../contract/errors.ts';
import type { GraphEvidence, GraphInput } from '../contract/evidence/tooling.ts';
import type { AlembicGraph, AlembicRevision } from '../contract/graph.ts';
import { lintProfileFindings } from '../lint/squawk.ts';
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
      const hidden = isHiddenGraph(graph);
      const unknown = hidden ? [] : unknownRevisions(graph, startRevisions);
      const overlapping = hidden ? [] : overlappingRows(graph, startRevisions);
      const staging = hidden ? [] : unknownRevisions(graph, await stagingRevisions(deps, input, tools.signal));
      const target = resolveTarget(graph, input.targetRevision);
      const findings = [
        ...(unknown.length > 0
          ? [
              `production stands at ${unknown.join(', ')}, which ${input.run.releaseTag} does not know: is it an older release than the deployed one?`,
            ]
          : []),
        ...(overlapping.length > 0
          ? [
              `production's version rows ${startRevisions.join(', ')} overlap: others build upon ${overlapping.join(', ')}, which Alembic refuses. Have the owners delete ${overlapping.length === 1 ? 'that row' : 'those rows'} from the version table`,
            ]
          : []),
        ...(staging.length > 0
          ? [
              `staging stands at ${staging.join(', ')}, which ${input.run.releaseTag} does not know: another release was tried there. Refresh staging from production, or downgrade it with that release's own code (${startRevisions.map((revision) => `alembic downgrade ${revision}`).join(', ') || 'alembic downgrade base'}; with several heads one command a branch)`,
            ]
          : []),
        ...(target.kind === 'refused' ? [target.message] : []),
        ...(await lintProfileFindings({
          ...input.profile.lint,
          signal: tools.signal,
          redactor: deps.secrets.redactor,
        })),
      ];
      if (findings.length > 0 || target.kind === 'refused') throw refusal(findings);

      const targets = remainingTargets(graph, startRevisions, target.revisions);
      const path = upgradePaths(graph, knownRows(graph, startRevisions), targets);
      const end = rowsAtTarget(startRevisions, { path, targetRevisions: targets });
      const back = downgradePlan(graph, end, startRevisions);
      const evidence: GraphEvidence = {
        startRevisions,
        targetRevision: target.revisions.join(', '),
        targetRevisions: targets,
        path,
        downgrade:
          back.kind === 'planned'
            ? { kind: 'planned', commands: back.commands.map(({ argument }) => argument) }
            : { kind: 'impossible', why: back.why },
        risks: path.flatMap(risksOf),
        unknown: unknownsOf(input, hidden, startRevisions, targets),
      };
      return evidence;
    });

/** Of a hidden graph only the heads are known, whatever the database says. */
const knownRows = (graph: AlembicGraph, rows: readonly string[]): readonly string[] =>
  rows.filter((row) => revisionsById(graph).has(row));

/** Branches that stand where they should already need no upgrade; where all do, all are named. */
function remainingTargets(graph: AlembicGraph, rows: readonly string[], targets: readonly string[]): readonly string[] {
  const applied = ancestorsOf(graph, rows);
  const remaining = targets.filter((target) => !applied.has(target));
  return remaining.length > 0 ? remaining : targets;
}

function unknownsOf(
  { profile }: GraphInput,
  hidden: boolean,
  startRevisions: readonly string[],
  targets: readonly string[],
): readonly string[] {
  if (hidden) return hiddenUnknowns(startRevisions, targets);
  const { upgrade, heads } = profile.alembic.commands;
  return upgrade === undefined || heads !== undefined
    ? []
    : [
        `whether ${upgrade[0]} runs the revisions of ${profile.alembic.config}, from which the graph was read: a command that sets version locations of its own is seen through with alembic.commands.heads`,
      ];
}

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

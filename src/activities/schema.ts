import { isHidden } from '../alembic/hidden-graph.ts';
import { rowsAtTarget } from '../alembic/reconcile.ts';
import type { DryRunActivities, ValidationActivities } from '../contract/activities.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { SchemaValidation, ValidateSchemaInput } from '../contract/evidence/schema.ts';
import type { SchemaDiffEvidence, SchemaDiffInput } from '../contract/evidence/dry-run.ts';
import type { ImitatedLogin } from '../contract/evidence/rehearsal.ts';
import { withConnection } from '../postgres/connection.ts';
import { parseConnectionUrl } from '../postgres/connection-url.ts';
import {
  type ComparedChanges,
  compareChanges,
  compareMaps,
  countEffects,
  describeChange,
  namesOf,
  type ObjectMapChange,
} from '../postgres/catalog/object-map-change.ts';
import { keyOf } from '../postgres/catalog/object-map.ts';
import { type ProductionReading, readProductionState } from '../postgres/catalog/production-state.ts';
import { diffSchemaDumps } from '../postgres/catalog/schema-diff.ts';
import { expectationsFor, unmetExpectations } from '../postgres/catalog/schema-expectations.ts';
import { runStep, type StepTools } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { type RunStore, withRunStore } from './run-store.ts';
import { readStoredObjectMap, readStoredText } from './stored-text.ts';

type Needed = Pick<ActivityDependencies, 'secrets'>;

export function createSchemaActivities(
  dependencies: Needed,
): Pick<DryRunActivities, 'diffSchema'> & Pick<ValidationActivities, 'validateSchema'> {
  const { secrets } = dependencies;
  return {
    diffSchema: (input) =>
      runStep(secrets, (tools) =>
        withRunStore(secrets, input, tools.signal, (store) => diffSchema(dependencies, input, tools, store)),
      ),
    validateSchema: (input) =>
      runStep(secrets, (tools) =>
        withRunStore(secrets, input, tools.signal, (store) => validateSchema(dependencies, input, tools, store)),
      ),
  };
}

async function diffSchema(
  { secrets }: Needed,
  { staging }: SchemaDiffInput,
  { signal }: StepTools,
  store: RunStore,
): Promise<SchemaDiffEvidence> {
  const change = compareMaps(
    await readStoredObjectMap(store, staging.mapBefore, signal),
    await readStoredObjectMap(store, staging.mapAfter, signal),
  );
  const dumps = await diffSchemaDumps(
    await readStoredText(store, staging.schemaBefore, signal),
    await readStoredText(store, staging.schemaAfter, signal),
    { signal, redactor: secrets.redactor },
  );
  const diff = await store.archive('staging/schema.diff', schemaDocument(change, dumps), 'text/x-diff');
  return { diff, ...namesOf(change) };
}

/** Objects first, as comments that `patch` skips, then the dumps' unified diff. */
function schemaDocument(change: ObjectMapChange, dumps: string): string {
  const objects = describeChange(change).map((line) => `# ${line.replaceAll('\n', ' ')}`);
  return [
    `# ${change.added.length} objects added, ${change.removed.length} removed, ${change.changed.length} changed`,
    ...objects,
    '',
    dumps === '' ? '# pg_dump --schema-only: no difference' : dumps,
  ].join('\n');
}

/** Lines are evidence in the history and must stay small. */
const LINES_SHOWN = 200;

async function validateSchema(
  { secrets }: Needed,
  input: ValidateSchemaInput,
  { signal, progress }: StepTools,
  store: RunStore,
): Promise<SchemaValidation> {
  const { run, profile, before, rehearsed } = input;
  const { production } = profile.databases;
  const url = await secrets.resolve(production.administrator, profile, signal);
  const migrator = parseConnectionUrl(await secrets.resolve(production.migrator, profile, signal));
  progress({ phase: 'reading production' });
  const reading = await withConnection(url, { runId: run.runId, step: 'validation.schema', signal }, (client) =>
    readProductionState(client, { versionTable: profile.alembic.versionTable, migratorRole: migrator.user }),
  );
  const change = compareMaps(await readStoredObjectMap(store, before.objectMap, signal), reading.map);
  const compared = compareChanges(
    change,
    compareMaps(
      await readStoredObjectMap(store, rehearsed.mapBefore, signal),
      await readStoredObjectMap(store, rehearsed.mapAfter, signal),
    ),
    { copy: rehearsed.imitated.login, production: rehearsed.imitated.role },
  );
  const rights = judgeRights(compared, rehearsed.imitated);
  const expectations = expectationsFor(profile.schema, run.releaseTag);
  const findings = [
    ...revisionFindings(input, reading),
    ...unmetExpectations(reading.map, expectations).map((object) => `${keyOf(object)} is expected and missing`),
    ...reading.state.invalidIndexes
      .filter((name) => !before.invalidIndexes.includes(name))
      .map((name) => `index ${name} is invalid`),
    ...compared.objects,
    ...rights.findings,
  ];
  if (findings.length > 0) {
    const { uri } = await store.archive('validation/schema-findings.txt', `${findings.join('\n')}\n`, 'text/plain');
    const more = findings.length > 10 ? ` and ${findings.length - 10} more, all in ${uri}` : '';
    throw new StepError(
      STEP_ERRORS.checkFailed,
      `production's schema is not what was rehearsed: ${findings.slice(0, 10).join('; ')}${more}`,
      { findings: findings.slice(0, 100), all: uri },
    );
  }
  return {
    expected: expectations.map(keyOf),
    changes: countEffects(change) - rights.unknown.length,
    versionRows: reading.state.versionRows,
    notCompared: [
      ...rights.unknown,
      ...compared.notCompared.map(
        (line) => `${line}; a copy on the scratch server has none of its kind to compare with`,
      ),
    ].slice(0, LINES_SHOWN),
  };
}

/** Owners and grants that differ where the rehearsal's login was not what it imitated prove nothing, and are told. */
function judgeRights(
  { rights }: ComparedChanges,
  { role, differences }: ImitatedLogin,
): { readonly findings: readonly string[]; readonly unknown: readonly string[] } {
  if (differences.length === 0) return { findings: rights, unknown: [] };
  const why =
    `role "${role}" could not be imitated whole in the rehearsal: ${differences.slice(0, 3).join('; ')}`.slice(0, 600);
  return { findings: [], unknown: rights.map((line) => `${line}; nobody can tell whether it should: ${why}`) };
}

/**
 * Rows of other branches, which the release did not touch, stand beside those it leads to. A target that a later revision
 * depends on has no row of its own.
 */
function revisionFindings({ graph, before }: ValidateSchemaInput, { state }: ProductionReading): string[] {
  const { versionRows } = state;
  const planned = rowsAtTarget(before.versionRows, graph);
  const known = graph.path.some(isHidden) ? [...planned, ...before.versionRows] : planned;
  return [
    ...planned
      .filter((revision) => !versionRows.includes(revision))
      .map((revision) => `production stands at ${versionRows.join(', ') || 'no revision'}, not at ${revision}`),
    ...versionRows
      .filter((revision) => !known.includes(revision))
      .map((revision) => `production stands at revision ${revision}, which is not the target`),
  ];
}

import { Context } from '@temporalio/activity';
import { rowsAtTarget } from '../../alembic/reconcile.ts';
import { findPrograms } from '../../archive/programs.ts';
import type { DryRunActivities } from '../../contract/activities.ts';
import type { FlowsEvidence, StagingEvidence, StagingInput } from '../../contract/evidence/dry-run.ts';
import type { StepInput, StoredDocument } from '../../contract/evidence/step.ts';
import { STEP_ERRORS, StepError } from '../../contract/errors.ts';
import type { ConfiguredValue } from '../../contract/profile.ts';
import { withApplication } from '../../integrations/application.ts';
import { runFlow } from '../../integrations/flows.ts';
import { runValues } from '../../integrations/context.ts';
import type { ConnectionOptions } from '../../postgres/connection.ts';
import { inDatabase, parseConnectionUrl } from '../../postgres/connection-url.ts';
import { ProgramLog } from '../../process/program-log.ts';
import { requireApart } from '../../staging/apart.ts';
import { confidential } from '../../staging/confidential.ts';
import { stagingEnvironments } from '../../staging/environment.ts';
import {
  endEarlierAttempt,
  readStaging,
  type StagingRun,
  testMigrations,
  upgradeStaging,
} from '../../staging/migrate.ts';
import { runStep, type StepTools } from '../activity-step.ts';
import { ensureReleaseCheckout } from '../checkout.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { integrationContext, secretAccess } from '../integration-context.ts';
import { type RunStore, withRunStore } from '../run-store.ts';

type Needed = Pick<ActivityDependencies, 'stateDirectory' | 'secrets'>;

export function createStagingActivities(
  dependencies: Needed,
): Pick<DryRunActivities, 'migrateStaging' | 'exerciseApplication'> {
  const { secrets } = dependencies;
  return {
    migrateStaging: (input) =>
      runStep(secrets, (tools) =>
        withRunStore(secrets, input, tools.signal, (store) => migrateStaging(dependencies, input, tools, store)),
      ),

    exerciseApplication: (input) => runStep(secrets, (tools) => exerciseApplication(dependencies, input, tools)),
  };
}

async function migrateStaging(
  dependencies: Needed,
  input: StagingInput,
  tools: StepTools,
  store: RunStore,
): Promise<StagingEvidence> {
  const log = new ProgramLog();
  const run = await prepare(dependencies, input, tools, log, input.production);
  if (tools.attempt > 1) await endEarlierAttempt(run);
  try {
    const before = await stateBefore(run, store, tools.attempt);
    const { targetRevisions } = input.graph;
    let upgradeMilliseconds = 0;
    for (const target of targetRevisions) upgradeMilliseconds += await upgradeStaging(run, target);
    const after = await readStaging(run);
    requireTargets(before.revisions, after.revisions, input.graph);
    const mapAfter = await store.record('staging/object-map-after.json', after.map);
    const schemaAfter = await store.archive('staging/schema-after.sql', after.schema, 'application/sql');
    const tests = await testMigrations(run);
    return {
      before: before.revisions,
      after: after.revisions,
      tests,
      log: await archiveLog(store, log),
      upgradeMilliseconds,
      mapBefore: before.map,
      mapAfter,
      schemaBefore: before.schema,
      schemaAfter,
      nothingToDo: before.revisions.join() === after.revisions.join(),
    };
  } catch (error) {
    // What the programs wrote helps most when they fail; that it cannot be stored must not hide why they did.
    if (!tools.signal.aborted) await archiveLog(store, log).catch(() => undefined);
    throw error;
  }
}

const archiveLog = (store: RunStore, log: ProgramLog): Promise<StoredDocument> =>
  store.archive('staging/dry-run.log', log.text, 'text/plain');

async function prepare(
  dependencies: Needed,
  input: StepInput,
  tools: StepTools,
  log: ProgramLog,
  expected: StagingInput['production'],
): Promise<StagingRun> {
  const { profile } = input;
  const { secrets } = dependencies;
  const access = secretAccess(dependencies, input, tools.signal);
  const checkout = await ensureReleaseCheckout(dependencies, input, tools);
  const migratorUrl = await access.resolve(profile.databases.staging.migrator);
  const migrator = parseConnectionUrl(migratorUrl);
  const environments = await stagingEnvironments(profile, checkout, migratorUrl, access);
  const session = sessionOf(input, tools);
  await requireApart({
    production: await access.resolve(profile.databases.production.backup),
    stagingMigrator: migratorUrl,
    addresses: environments.addresses,
    urlVariable: profile.alembic.urlVariable,
    expected,
    session,
  });
  const administrator = parseConnectionUrl(await access.resolve(profile.databases.staging.administrator));
  const programs = await findPrograms(profile, { signal: tools.signal, redactor: secrets.redactor });
  return {
    profile,
    checkout,
    environments,
    administrator: inDatabase(administrator, migrator.database),
    migratorRole: migrator.user,
    pgDump: programs.pg_dump.file,
    session,
    // Values of the environment file may be secrets that no reference names.
    redactor: secrets.redactor.with(confidential(environments.application, environments.migration)),
    log,
    progress: (details) => tools.progress({ ...details }),
  };
}

const sessionOf = ({ run }: StepInput, { signal }: StepTools): ConnectionOptions => ({
  runId: run.runId,
  step: Context.current().info.activityId,
  signal,
});

interface Before {
  readonly revisions: readonly string[];
  readonly map: StoredDocument;
  readonly schema: StoredDocument;
}

/**
 * Staging before the upgrade. A later attempt takes it from the first: it may find staging upgraded already, and would
 * report that there was nothing to try.
 */
async function stateBefore(
  run: StagingRun,
  { store, folder, archive, record }: RunStore,
  attempt: number,
): Promise<Before> {
  const name = 'staging/before.json';
  if (attempt > 1) {
    const earlier = await store.get(`${folder}/${name}`, run.session.signal);
    if (earlier !== undefined) return JSON.parse(Buffer.from(earlier).toString('utf8')) as Before;
  }
  const snapshot = await readStaging(run);
  const before: Before = {
    revisions: snapshot.revisions,
    map: await record('staging/object-map-before.json', snapshot.map),
    schema: await archive('staging/schema-before.sql', snapshot.schema, 'application/sql'),
  };
  await record(name, JSON.stringify(before));
  return before;
}

/**
 * Alembic ends well where it had nothing to do, and where env.py led it to another database than the one it was given. A
 * target that a later one depends on has no row of its own.
 */
function requireTargets(before: readonly string[], after: readonly string[], graph: StagingInput['graph']): void {
  const planned = rowsAtTarget(graph.startRevisions, graph);
  const targets = graph.targetRevisions.filter((target) => planned.includes(target));
  if ((targets.length === 0 ? graph.targetRevisions : targets).every((target) => after.includes(target))) return;
  const target = graph.targetRevisions.join(', ');
  const at = after.join(', ') || 'no revision';
  throw new StepError(
    STEP_ERRORS.checkFailed,
    before.join() === after.join()
      ? `alembic upgrade ${target} changed nothing on staging, which stands at ${at}: refresh staging from production if it is ahead; otherwise env.py may read another variable than alembic.urlVariable`
      : `alembic upgrade ${target} left staging at ${at}`,
    { before, after, target },
  );
}

const literalsOf = (values: Readonly<Record<string, ConfiguredValue>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(values).flatMap(([name, value]) => (typeof value === 'string' ? [[name, value]] : [])),
  );

async function exerciseApplication(dependencies: Needed, input: StepInput, tools: StepTools): Promise<FlowsEvidence> {
  const { profile } = input;
  const { boot, flows } = profile.application;
  const context = integrationContext(dependencies, input, tools);
  const checkout = await context.checkout();
  const migratorUrl = await context.secrets.resolve(profile.databases.staging.migrator);
  const environments = await stagingEnvironments(profile, checkout, migratorUrl, context.secrets);
  await requireApart({
    production: await context.secrets.resolve(profile.databases.production.backup),
    stagingMigrator: migratorUrl,
    addresses: environments.addresses,
    urlVariable: profile.alembic.urlVariable,
    session: sessionOf(input, tools),
  });
  tools.progress({ phase: 'booting the application' });
  const start = {
    command: boot.command,
    directory: checkout,
    environment: environments.application,
    templates: literalsOf(boot.environment),
    readyPath: boot.readyPath,
    timeout: boot.timeout,
    values: { ...runValues(input.run), checkout },
    redactor: context.secrets.redactor.with(confidential(environments.application)),
    signal: tools.signal,
  };
  return withApplication(start, async ({ baseUrl, bootMilliseconds }) => {
    const results: FlowsEvidence['flows'][number][] = [];
    for (const flow of flows) {
      tools.progress({ phase: 'flows', flow: flow.name, done: results.length, of: flows.length });
      results.push(await runFlow(flow, baseUrl, context));
    }
    return { bootMilliseconds, flows: results };
  });
}

import type { FenceActivities } from '../../contract/activities.ts';
import { STEP_ERRORS, StepError } from '../../contract/errors.ts';
import type {
  FenceEvidence,
  FenceHeld,
  FenceHeldInput,
  RecoveryPointEvidence,
  RecoveryPointInput,
  ReleaseFenceInput,
} from '../../contract/evidence/fence.ts';
import type { ArchivedFootprint } from '../../contract/evidence/rehearsal.ts';
import type { StepInput, StoredDocument } from '../../contract/evidence/step.ts';
import type { SwitchState } from '../../contract/evidence/switches.ts';
import type { Fence, Switch } from '../../contract/profile.ts';
import { runDocument } from '../../integrations/actions.ts';
import { runCheck } from '../../integrations/checks.ts';
import { lastLine, runCommandAction } from '../../integrations/command-action.ts';
import { engageSwitch, readSwitch, releaseSwitch } from '../../integrations/switch.ts';
import { withConnection } from '../../postgres/connection.ts';
import { inDatabase, parseConnectionUrl } from '../../postgres/connection-url.ts';
import { beginsReadOnly, type FenceRequest, lowerFence, raiseFence, readFence } from '../../postgres/fence/fence.ts';
import { tryToWrite, type WriteTrial } from '../../postgres/fence/fence-trial.ts';
import { readIdentity } from '../../postgres/identity.ts';
import { setRestorePoint } from '../../postgres/fence/recovery-point.ts';
import { settledCounters } from '../../postgres/contents/settled-counters.ts';
import { counterDelta, readCounters, type TableCounters } from '../../postgres/contents/write-counters.ts';
import { runStep, type StepTools } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { integrationContext } from '../integration-context.ts';
import { withMigrationLock } from '../migration-lock.ts';
import { nameInExecution, type RunStore, withRunStore } from '../run-store.ts';
import { readStoredText } from '../stored-text.ts';

type Needed = Pick<ActivityDependencies, 'secrets' | 'stateDirectory'>;
type Maintenance = Extract<Fence, { readonly kind: 'maintenance' }>;

const STEP = 'apply.fence';

export function createFenceActivities(dependencies: Needed): FenceActivities {
  const { secrets } = dependencies;
  /** Under the migration lock, with the administrator's address. */
  const locked = <T>(
    input: StepInput,
    step: string,
    tools: StepTools,
    work: (url: string, tools: StepTools) => Promise<T>,
  ): Promise<T> => {
    tools.progress({ phase: 'taking the migration lock' });
    return withMigrationLock(dependencies, input, step, tools.signal, (url, signal) => work(url, { ...tools, signal }));
  };

  return {
    readFence: (input) =>
      runStep(secrets, async (tools) => {
        const { fence } = input.profile;
        if (fence.kind === 'none') return { state: 'released', detail: { note: 'the profile asks for no fence' } };
        if (fence.kind === 'maintenance') {
          return readSwitch(asSwitch(fence), integrationContext(dependencies, input, tools));
        }
        const url = await secrets.resolve(
          input.profile.databases.production.administrator,
          input.profile,
          tools.signal,
        );
        return asAdministrator(input, url, tools, 'maintenance', async (client) =>
          readFence(client, await fenceRequest(dependencies, input, tools)),
        );
      }),

    engageFence: (input) =>
      runStep(secrets, (tools) =>
        withRunStore(secrets, input, tools.signal, (store) =>
          locked(input, STEP, tools, (url, held) => engage(dependencies, input, held, store, url)),
        ),
      ),

    releaseFence: (input) =>
      runStep(secrets, (tools) =>
        locked(input, `${STEP}/release`, tools, (url, held) => release(dependencies, input, held, url)),
      ),

    proveFenceHeld: (input) =>
      runStep(secrets, (tools) =>
        withRunStore(secrets, input, tools.signal, (store) => prove(dependencies, input, tools, store)),
      ),

    createRecoveryPoint: (input) =>
      runStep(secrets, (tools) =>
        locked(input, input.step, tools, (url, held) => createRecoveryPoint(dependencies, input, held, url)),
      ),
  };
}

async function engage(
  dependencies: Needed,
  input: StepInput,
  tools: StepTools,
  store: RunStore,
  url: string,
): Promise<FenceEvidence> {
  const { fence } = input.profile;
  switch (fence.kind) {
    case 'none':
      throw new StepError(STEP_ERRORS.refused, 'the profile asks for no fence: none is raised');
    case 'maintenance':
      return engageMaintenance(dependencies, input, tools, store, url, fence);
    case 'read-only':
      return engageReadOnly(dependencies, input, tools, store, url);
  }
}

async function engageReadOnly(
  dependencies: Needed,
  input: StepInput,
  tools: StepTools,
  store: RunStore,
  url: string,
): Promise<FenceEvidence> {
  const request = await fenceRequest(dependencies, input, tools);
  // Everything the trial needs is there before anybody is kept from writing.
  const application = await applicationUrl(dependencies, input, tools);
  const raised = await asAdministrator(input, url, tools, 'maintenance', (client) => raiseFence(client, request));
  tools.progress({ phase: 'trying to write as the service' });
  const trial = await tryAsService(input, url, application, tools);
  if (trial.kind !== 'read-only') {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `the fence is up, but it does not hold the service: ${trial.told}`,
      {
        tried: trial.told,
      },
    );
  }
  // Whoever wrote before was ended, and has reported on ending.
  const counters = await asAdministrator(input, url, tools, 'production', readCounters);
  return {
    state: raised.state,
    since: raised.since,
    endedSessions: raised.endedSessions,
    tried: trial.told,
    counters: await recordCounters(store, counters),
  };
}

async function engageMaintenance(
  dependencies: Needed,
  input: StepInput,
  tools: StepTools,
  store: RunStore,
  url: string,
  fence: Maintenance,
): Promise<FenceEvidence> {
  const context = integrationContext(dependencies, input, tools);
  tools.progress({ phase: 'switching the maintenance mode on' });
  const state = await engageSwitch(asSwitch(fence), context);
  tools.progress({ phase: `checking that the service refuses to write: ${fence.check.name}` });
  const answer = await runCheck(fence.check, context);
  const { counters, unsettled } = await asAdministrator(input, url, tools, 'production', (client) =>
    settledCounters(client, { signal: tools.signal, progress: tools.progress, patience: MAINTENANCE_PATIENCE }),
  );
  if (unsettled.length > 0) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `maintenance mode is on, but sessions remain that could write: ${unsettled.slice(0, 5).join('; ')}`,
      { unsettled: unsettled.slice(0, 50) },
    );
  }
  return {
    state,
    since: counters.takenAt,
    endedSessions: 0,
    tried: `check "${fence.check.name}" passed: ${answer}`,
    counters: await recordCounters(store, counters),
  };
}

/** What the service has begun before its maintenance mode may take this long to finish (milliseconds). */
const MAINTENANCE_PATIENCE = 60_000;

async function release(
  dependencies: Needed,
  input: ReleaseFenceInput,
  tools: StepTools,
  url: string,
): Promise<SwitchState> {
  const { fence } = input.profile;
  if (fence.kind === 'none') return input.before;
  if (fence.kind === 'maintenance') {
    return releaseSwitch(asSwitch(fence), input.before, integrationContext(dependencies, input, tools));
  }
  const request = await fenceRequest(dependencies, input, tools);
  // An earlier attempt may have put the settings back and died before it came to the sessions.
  const raised = tools.attempt > 1 ? 'surely' : input.raised;
  tools.progress({ phase: 'putting the settings back' });
  const { state, endedSessions, settings } = await asAdministrator(input, url, tools, 'maintenance', (client) =>
    lowerFence(client, input.before, { ...request, raised }),
  );
  tools.progress({ phase: 'trying to write as the service' });
  const trial = await tryToRelease(dependencies, input, tools, url);
  if (trial.kind === 'read-only' && !beginsReadOnly(settings, trial.role)) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `the settings are back as they were, but the service still cannot write: ${trial.told}`,
      { tried: trial.told },
    );
  }
  return { ...state, detail: { ...state.detail, endedSessions, tried: trial.told } };
}

/**
 * The settings are proven to be back by now. A login that finds every connection taken, as all clients come back at once, is
 * told and does not fail the step: its repetition would end all sessions of production once more.
 */
async function tryToRelease(
  dependencies: Needed,
  input: StepInput,
  tools: StepTools,
  url: string,
): Promise<WriteTrial | { readonly kind: 'not-tried'; readonly told: string }> {
  try {
    return await tryAsService(input, url, await applicationUrl(dependencies, input, tools), tools);
  } catch (error) {
    tools.signal.throwIfAborted();
    if (!(error instanceof StepError)) throw error;
    return { kind: 'not-tried', told: `could not be tried: ${error.message.slice(0, 300)}` };
  }
}

async function prove(
  { secrets }: Needed,
  input: FenceHeldInput,
  tools: StepTools,
  store: RunStore,
): Promise<FenceHeld> {
  const { profile, fence } = input;
  const before = JSON.parse(await readStoredText(store, fence.counters, tools.signal)) as TableCounters;
  const url = await secrets.resolve(profile.databases.production.administrator, profile, tools.signal);
  const { counters, unsettled } = await asAdministrator(input, url, tools, 'production', (client) =>
    settledCounters(client, { signal: tools.signal, progress: tools.progress }),
  );
  const isOthers = await othersWrites(input, before, store, tools.signal);
  const delta = counterDelta(before, counters);
  const written = delta.written.filter(({ table }) => isOthers(table));
  const unknown = delta.unknown.filter(isOthers);
  const untold = [...unsettled, ...unknown.map((table) => `${table}: its counters cannot tell`)];
  return {
    held: written.length === 0 && untold.length === 0,
    written: written.slice(0, 50),
    unknown: untold.slice(0, 50),
    counters: await recordCounters(store, counters),
  };
}

/**
 * Before the migration every write is somebody else's. Once it has begun, those are that go to tables which were there before and
 * which it neither wrote when it was rehearsed, up and down, nor locked as writing does: the rows it changes may have come since.
 */
async function othersWrites(
  { footprint }: FenceHeldInput,
  before: TableCounters,
  store: RunStore,
  signal: AbortSignal,
): Promise<(table: string) => boolean> {
  if (footprint === undefined) return () => true;
  const { writes = [], locks } = JSON.parse(await readStoredText(store, footprint, signal)) as ArchivedFootprint;
  const there = new Set(before.tables.map(({ table }) => table));
  const locked = locks.filter(({ mode }) => LOCKS_OF_WRITERS.has(mode)).map(({ relation }) => relation);
  const own = new Set([...writes, ...locked]);
  return (table) => there.has(table) && !own.has(table);
}

/** Modes that go with changing rows (PostgreSQL documentation, "Explicit Locking"). */
const LOCKS_OF_WRITERS: ReadonlySet<string> = new Set([
  'RowExclusiveLock',
  'ShareRowExclusiveLock',
  'ExclusiveLock',
  'AccessExclusiveLock',
]);

async function createRecoveryPoint(
  dependencies: Needed,
  input: RecoveryPointInput,
  tools: StepTools,
  url: string,
): Promise<RecoveryPointEvidence> {
  const { run, profile } = input;
  const { restorePoint, snapshot } = profile.recoveryPoint;
  const takenAt = new Date().toISOString();
  tools.progress({ phase: 'setting a restore point' });
  const point = restorePoint
    ? await asAdministrator(input, url, tools, 'maintenance', (client) =>
        setRestorePoint(client, { service: run.service, runId: run.runId }),
      )
    : null;
  if (snapshot === undefined) return { takenAt, restorePoint: point, snapshot: null };
  tools.progress({ phase: 'waiting for the snapshot command' });
  const context = integrationContext(dependencies, input, tools);
  // The key is the same for every attempt: a provider that knows it need not take a second snapshot.
  const document = {
    key: `${run.runId}/${nameInExecution(input.step, run.runId)}`,
    run: runDocument(run),
    restorePoint: point,
  };
  const { output } = await runCommandAction(snapshot, `${JSON.stringify(document)}\n`, context);
  const id = lastLine(output).trim().slice(0, 200);
  if (id === '') {
    throw new StepError(
      STEP_ERRORS.refused,
      'recoveryPoint.snapshot: the command succeeded, but its last line names no snapshot: make it print the id',
    );
  }
  return { takenAt, restorePoint: point, snapshot: id };
}

const asSwitch = ({ mechanism }: Maintenance): Switch => ({
  name: 'maintenance mode',
  kind: 'freeze',
  mechanism,
  keepAfter: [],
});

function asAdministrator<T>(
  { run, profile }: StepInput,
  url: string,
  { signal }: Pick<StepTools, 'signal'>,
  where: 'maintenance' | 'production',
  work: Parameters<typeof withConnection<T>>[2],
): Promise<T> {
  const { maintenanceDatabase } = profile.databases.production;
  const production = parseConnectionUrl(url);
  const target = where === 'production' ? production : inDatabase(production, maintenanceDatabase);
  return withConnection(target, { runId: run.runId, step: STEP, signal }, work);
}

async function fenceRequest(
  { secrets }: Needed,
  { profile }: StepInput,
  { signal, progress }: StepTools,
): Promise<FenceRequest> {
  const { administrator, migrator, applicationRoles } = profile.databases.production;
  return {
    database: parseConnectionUrl(await secrets.resolve(administrator, profile, signal)).database,
    migratorRole: parseConnectionUrl(await secrets.resolve(migrator, profile, signal)).user,
    applicationRoles,
    signal,
    progress: (details) => progress({ ...details }),
  };
}

async function applicationUrl({ secrets }: Needed, { profile }: StepInput, { signal }: StepTools): Promise<string> {
  const { application } = profile.databases.production;
  if (application === undefined) {
    throw new StepError(
      STEP_ERRORS.refused,
      'the profile names no databases.production.application: a fence of kind read-only is tried as the service itself, so its login is needed',
    );
  }
  return secrets.resolve(application, profile, signal);
}

async function tryAsService(
  input: StepInput,
  administratorUrl: string,
  applicationUrl: string,
  tools: StepTools,
): Promise<WriteTrial> {
  const { run, profile } = input;
  const production = await asAdministrator(input, administratorUrl, tools, 'production', readIdentity);
  return tryToWrite({
    url: applicationUrl,
    applicationRoles: profile.databases.production.applicationRoles,
    production,
    session: { runId: run.runId, step: `${STEP}/trial`, signal: tools.signal },
  });
}

/** Named by the moment: a later reading must not replace what it is compared with. */
const recordCounters = (store: RunStore, counters: TableCounters): Promise<StoredDocument> =>
  store.record(`fence/counters-${counters.takenAt.replaceAll(/[:.]/g, '-')}.json`, JSON.stringify(counters));

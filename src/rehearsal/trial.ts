/** The migration and its undo on a copy of the backup: what the upgrade does, and what the way back is worth. */
import type { Client } from 'pg';
import { rowsAtTarget } from '../alembic/reconcile.ts';
import type { StatementEvent } from '../alembic/statements.ts';
import { versionTableName } from '../archive/ledger.ts';
import type { ChecksEvidence } from '../contract/evidence/checks.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { judgeSqlAnswer } from '../integrations/checks.ts';
import { readSingleValue } from '../integrations/single-value.ts';
import { type ConnectionOptions, withConnection } from '../postgres/connection.ts';
import type { ConnectionTarget } from '../postgres/connection-url.ts';
import { listDisabledTriggers } from '../postgres/catalog/disabled-triggers.ts';
import { listInvalidIndexes } from '../postgres/catalog/leftover-indexes.ts';
import { captureObjectMap, type ObjectMap, withoutTable } from '../postgres/catalog/object-map.ts';
import { reorderedColumns } from '../postgres/catalog/object-map-restore.ts';
import { counterDelta, readCounters } from '../postgres/contents/write-counters.ts';
import { queryFailure } from '../postgres/database-error.ts';
import { type CommandsRun, runCommands, type TrialCommand } from './alembic-run.ts';
import { type ComparedData, compareData } from './data-difference.ts';
import { countNewObjects, droppedSince, type HeldObject, namesHeld } from './dropped.ts';
import { FootprintRecorder } from './footprint.ts';
import { sampleLocks } from './lock-sampling.ts';
import { objectDifferences } from './object-difference.ts';
import { OwnLimits } from './own-limits.ts';
import { namesOfExisting, readStorage, rewritten, type StorageState, walBetween } from './storage.ts';
import { ServerWideChanges } from './server-wide.ts';
import type { Rehearse, Rehearsed, TrialRequest } from './trial-request.ts';
import { judge, type TrialFacts } from './verdict.ts';
import { newWaysOut, waysOut } from './ways-out.ts';

/** Invalid indexes, and triggers of constraints, are in no map: they are told beside it. */
interface Objects {
  readonly map: ObjectMap;
  readonly invalid: readonly string[];
  readonly disabled: readonly string[];
}

interface CopyState extends Objects {
  readonly storage: StorageState;
}

export const rehearse: Rehearse = async (request) => {
  const counters = await inCopy(request, readCounters);
  const result = await tryAll(request);
  if (result.kind !== 'rehearsed') return result;
  // Nobody else is in the copy.
  const { written, unknown } = counterDelta(counters, await inCopy(request, readCounters));
  const changed = new Set([...written.map(({ table }) => table), ...unknown]);
  const writes = counters.tables.map(({ table }) => table).filter((table) => changed.has(table));
  return { ...result, footprint: { ...result.footprint, writes } };
};

const tryAll: Rehearse = async (request) => {
  const { plan, session } = request;
  const { names, ways, ...before } = await inCopy(request, async (client) => ({
    ...(await readState(client, request)),
    names: await namesHeld(client),
    ways: await waysOut(client),
  }));

  const serverWide = new ServerWideChanges();
  const ownLimits = new OwnLimits();
  const { run, recorder, upgrade, footprint, after } = await upgradeCopy(request, before, (event) => {
    serverWide.onStatement(event);
    ownLimits.onStatement(event);
  });
  if (run.failed !== undefined) {
    const { revision, why } = run.failed;
    return { kind: 'upgrade-failed', revision, why, leaves: differences(before, after).slice(0, 50) };
  }

  const reachingOut = newWaysOut(ways, await inCopy(request, waysOut));
  const smoke = await runSmoke(request);
  const deployed =
    request.tryUpgraded === undefined
      ? ({ kind: 'not-tried', why: 'nobody asked for it' } as const)
      : await request.tryUpgraded({ statements: recorder.definitions });
  session.signal.throwIfAborted();

  const unknown = [
    ...(upgrade.reporter.kind === 'absent' ? [reporterAbsent(upgrade.reporter.why)] : []),
    ...ownLimits.unknown,
    ...reachingOut.slice(0, 50),
    ...since(before.disabled, after.disabled)
      .slice(0, 50)
      .map((line) => `what its rows come to: the upgrade leaves ${line}`),
  ];
  const commits = plan.path
    .filter(({ revision, transactional }) => transactional === 'yes' && recorder.commits.has(revision))
    .map(({ revision }) => revision);
  const facts = { upgrade, footprint, smoke, deployed, commits, mapBefore: before.map, mapAfter: after.map };
  if (plan.downgrade.kind === 'impossible') {
    const verdict = judge({ downgrade: plan.downgrade });
    return {
      kind: 'rehearsed',
      ...facts,
      downgrade: null,
      verdict,
      again: null,
      dropped: [],
      unknown: [...unknown, ...serverWide.unknown],
    };
  }
  const undone = await undo(request, plan.downgrade.commands, names, before, after.map, serverWide);
  return { kind: 'rehearsed', ...facts, ...undone, unknown: [...unknown, ...undone.unknown, ...serverWide.unknown] };
};

const reporterAbsent = (why: string): string =>
  `times and locks of single statements (${why}): locks were looked at from outside, so short ones may be missing`;

// ---- upgrade ---------------------------------------------------------------------------------------------------------

async function upgradeCopy(request: TrialRequest, before: CopyState, onStatement: (event: StatementEvent) => void) {
  const recorder = new FootprintRecorder();
  // From outside as well until something is told from inside: whether it will be is not known before.
  const { run, sampled } = await inCopy(request, async (client) => {
    let sampling: ReturnType<typeof sampleLocks> | undefined = sampleLocks(client);
    let ending: Promise<unknown> | undefined;
    const upgraded = await runCommands(request, 'upgrade', upgradeCommands(request), {
      phase: 'upgrade',
      traceLocks: 'after-each-statement',
      onEvent: (event) => recorder.onEvent(event, Date.now()),
      onStatement: (event) => {
        recorder.onStatement(event);
        onStatement(event);
        ending = sampling?.stop() ?? ending;
        sampling = undefined;
      },
    });
    await ending;
    return { run: upgraded, sampled: (await sampling?.stop()) ?? [] };
  });
  const ended = Date.now();
  return inCopy(request, async (client) => {
    const after = await readState(client, request);
    const { seen, archived } = recorder.finish(ended, namesOfExisting(before.storage, after.storage), sampled);
    const upgrade: Rehearsed['upgrade'] = {
      ...seen,
      milliseconds: run.milliseconds,
      rewrites: rewritten(before.storage, after.storage).slice(0, 50),
      walBytes: await walBetween(client, before.storage.lsn, after.storage.lsn),
      growthBytes: after.storage.databaseBytes - before.storage.databaseBytes,
      reporter: run.reporter,
    };
    return { run, recorder, upgrade, footprint: archived, after };
  });
}

function upgradeCommands({ plan }: TrialRequest): readonly TrialCommand[] {
  const rows = rowsAtTarget(plan.startRevisions, plan);
  const last = plan.targetRevisions.length - 1;
  return plan.targetRevisions.map((argument, index) => ({
    argument,
    rowsAfter: index === last ? [...rows].sort() : null,
  }));
}

/** @throws StepError `CheckFailed` naming every query whose answer is not as expected */
async function runSmoke(request: TrialRequest): Promise<ChecksEvidence['checks']> {
  const passed: { name: string; milliseconds: number; answer: string }[] = [];
  const findings: string[] = [];
  for (const check of request.smoke) {
    request.progress?.({ phase: `smoke SQL "${check.name}"` });
    const started = performance.now();
    try {
      const options = { statementTimeout: check.timeout, searchPath: '"$user", public' };
      const answer = await inCopy(
        request,
        async (client) => {
          try {
            return judgeSqlAnswer(check, await readSingleValue(client, check.query));
          } catch (error) {
            throw queryFailure(error, request.copy);
          }
        },
        options,
      );
      passed.push({ name: check.name, milliseconds: Math.round(performance.now() - started), answer });
    } catch (error) {
      request.session.signal.throwIfAborted();
      if (!(error instanceof StepError)) throw error;
      findings.push(`smoke SQL "${check.name}" on the upgraded copy: ${error.message}`);
    }
  }
  if (findings.length === 0) return passed;
  throw new StepError(STEP_ERRORS.checkFailed, findings.join('; '), { findings, passed });
}

// ---- the way back ----------------------------------------------------------------------------------------------------

async function undo(
  request: TrialRequest,
  commands: readonly TrialCommand[],
  names: ReadonlySet<string>,
  before: CopyState,
  upgraded: ObjectMap,
  serverWide: ServerWideChanges,
): Promise<Pick<Rehearsed, 'downgrade' | 'verdict' | 'again' | 'dropped' | 'unknown'>> {
  request.progress?.({ phase: 'counting what the downgrade may drop' });
  const added = await inCopy(request, (client) => countNewObjects(client, names, versionTable(request)));
  const back = await runCommands(request, 'downgrade', commands, {
    phase: 'downgrade',
    onStatement: (event) => serverWide.onStatement(event),
  });
  const downgrade = { commands: back.commands, milliseconds: back.milliseconds };
  if (back.failed !== undefined) {
    const verdict = judge({ downgrade: { kind: 'failed', where: whereOf(back.failed), why: back.failed.why } });
    return { downgrade, verdict, again: null, dropped: [], unknown: [] };
  }
  const { objects, data, dropped } = await compareWithBackup(request, before, added);
  const again = await upgradeAgain(request);
  const verdict = judge({
    downgrade: { kind: 'done', difference: { objects, lost: data.lost, beyond: data.beyond } },
    again: again.fact,
  });
  return {
    downgrade,
    verdict,
    again: again.run.failed === undefined ? { milliseconds: again.run.milliseconds } : null,
    dropped,
    unknown: secondTimeText(again, upgraded),
  };
}

const whereOf = ({ command, revision }: NonNullable<CommandsRun['failed']>): string =>
  revision === null ? command : `${command}, revision ${revision}`;

async function compareWithBackup(
  request: TrialRequest,
  before: CopyState,
  added: readonly HeldObject[],
): Promise<{
  readonly objects: readonly string[];
  readonly data: ComparedData;
  readonly dropped: Rehearsed['dropped'];
}> {
  request.progress?.({ phase: 'comparing objects' });
  const { after, dropped } = await inCopy(request, async (client) => ({
    after: await readObjects(client, request),
    dropped: await droppedSince(client, added),
  }));
  const data = await inBoth(request, ([pristine, ...pristineReaders], [tried, ...triedReaders]) =>
    compareData(
      { pristine, tried, readers: { pristine: pristineReaders, tried: triedReaders } },
      request.recorded,
      versionTable(request),
      (table) => request.progress?.({ phase: 'comparing rows', line: table }),
    ),
  );
  const reordered = reorderedColumns(before.map, after.map).map((line) => line.slice(0, 300));
  return {
    objects: differences(before, after),
    data: { ...data, beyond: [...data.beyond, ...reordered] },
    dropped,
  };
}

async function upgradeAgain(request: TrialRequest): Promise<{
  readonly run: CommandsRun;
  readonly fact: NonNullable<TrialFacts['again']>;
  readonly map: ObjectMap;
}> {
  const run = await runCommands(request, 'upgrade', upgradeCommands(request), { phase: 'upgrade after the downgrade' });
  const map = await inCopy(request, (client) => readMap(client, request));
  const { failed } = run;
  return {
    run,
    map,
    fact: failed === undefined ? { kind: 'done' } : { kind: 'failed', where: failed.revision, why: failed.why },
  };
}

/** The same upgrade from the same state should make the same objects. */
function secondTimeText(
  { run, map }: { readonly run: CommandsRun; readonly map: ObjectMap },
  first: ObjectMap,
): string[] {
  if (run.failed !== undefined) return [];
  const differences = objectDifferences(first, map);
  return differences.length === 0
    ? []
    : [
        `why the second upgrade made other objects than the first: ${differences.slice(0, 5).join('; ')}`.slice(
          0,
          1000,
        ),
      ];
}

// ---- sessions --------------------------------------------------------------------------------------------------------

/** Copies are as large as production: nothing that reads them has a time limit of its own. */
const UNLIMITED = { statementTimeout: 0, lockTimeout: 0, idleTimeout: 0 } as const;

const inCopy = <T>(
  { copy, session }: TrialRequest,
  work: (client: Client) => Promise<T>,
  options: Partial<ConnectionOptions> = {},
): Promise<T> => withConnection(copy, { ...session, ...UNLIMITED, ...options }, work);

type Sessions = readonly [Client, ...Client[]];

/** `jobs` sessions in each. */
function inBoth<T>(request: TrialRequest, work: (pristine: Sessions, tried: Sessions) => Promise<T>): Promise<T> {
  const options = { ...request.session, ...UNLIMITED };
  const open = <R>(
    target: ConnectionTarget,
    use: (sessions: Sessions) => Promise<R>,
    opened: readonly Client[] = [],
  ): Promise<R> =>
    withConnection(target, options, (client) =>
      opened.length + 1 < request.jobs ? open(target, use, [...opened, client]) : use([client, ...opened]),
    );
  return open(request.pristine, (pristine) => open(request.copy, (tried) => work(pristine, tried)));
}

const versionTable = ({ alembic }: TrialRequest): string => versionTableName(alembic.versionTable);

const readMap = async (client: Client, { alembic }: TrialRequest): Promise<ObjectMap> =>
  withoutTable(await captureObjectMap(client), alembic.versionTable);

const readObjects = async (client: Client, request: TrialRequest): Promise<Objects> => ({
  map: await readMap(client, request),
  invalid: (await listInvalidIndexes(client)).map(({ name }) => name),
  disabled: await listDisabledTriggers(client),
});

const readState = async (client: Client, request: TrialRequest): Promise<CopyState> => ({
  ...(await readObjects(client, request)),
  storage: await readStorage(client),
});

const differences = (before: Objects, after: Objects): readonly string[] => [
  ...objectDifferences(before.map, after.map),
  ...after.invalid.filter((name) => !before.invalid.includes(name)).map((name) => `index ${name} is invalid`),
  ...since(before.disabled, after.disabled),
];

const since = (before: readonly string[], after: readonly string[]): readonly string[] =>
  after.filter((line) => !before.includes(line));

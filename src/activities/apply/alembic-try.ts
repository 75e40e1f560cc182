import type { RevisionStart } from '../../alembic/barrier.ts';
import type { AlembicCommandFacts } from '../../alembic/command.ts';
import { rowsAtTarget } from '../../alembic/reconcile.ts';
import { upgrade } from '../../alembic/upgrade.ts';
import { STEP_ERRORS, StepError } from '../../contract/errors.ts';
import type { UpgradeInput } from '../../contract/evidence/upgrade.ts';
import { serializeObjectMap } from '../../postgres/catalog/object-map.ts';
import type { WatchStop } from '../../postgres/lock-watch.ts';
import { lastWords } from '../../process/last-words.ts';
import { type ReadingOptions, readProduction } from './production-reading.ts';
import type { RehearsedLocks } from './rehearsed-locks.ts';
import { commandFor, environmentFor, type ReleaseAlembic } from '../release-alembic.ts';
import type { RunStore } from '../run-store.ts';
import { boundaryMapName, recordBoundary } from './upgrade-record.ts';
import { lockedOut, runWatched, type Told, type WatchedContext, type WatchedEnd } from './watched-alembic.ts';

export interface TryContext extends WatchedContext {
  readonly input: UpgradeInput;
  readonly store: RunStore;
  readonly reading: ReadingOptions;
  readonly release: ReleaseAlembic;
  readonly rehearsed: RehearsedLocks;
}

/** How one start of Alembic ended, by the database where that can tell. */
export type TryEnd =
  | { readonly kind: 'upgraded' }
  /** A lock could not be had: it may be tried again. */
  | { readonly kind: 'locked-out'; readonly why: string; readonly stop: WatchStop | undefined };

/**
 * Runs `alembic upgrade` to each target, one after the other, under the watch of locks, and returns when no session of the
 * migrator is left.
 *
 * @throws StepError `ProcessFailed` when Alembic failed for another reason than a lock, `StateUnexpected` when it ended well
 * and production is not where it should be
 */
export async function tryUpgrade(context: TryContext, inTry: number): Promise<TryEnd> {
  const { input, production, release, telling, log } = context;
  const { profile, run, graph } = input;
  telling.tell({ phase: 'alembic upgrade' });
  const end = await runWatched(context, inTry, async (options, told) => {
    let facts: AlembicCommandFacts | undefined;
    for (const target of graph.targetRevisions) {
      telling.tell({ target });
      facts = await upgrade({
        ...commandFor(
          release,
          environmentFor(release, production.migrator, profile.alembic, run),
          profile.alembic.commands.upgrade,
        ),
        ...options,
        target,
        atBoundary: (start) => atBoundary(context, told, start),
      });
      for (const note of facts.notes) log.note(note);
      if (facts.result.kind !== 'exited' || facts.result.code !== 0) break;
    }
    return facts;
  });
  return judge(context, end);
}

async function atBoundary({ input, store, reading }: TryContext, told: Told, start: RevisionStart): Promise<void> {
  told.startsWith(start.revision);
  // Inside a transaction that is still open nothing is durable, so there is nothing to write down.
  if (!start.committed) return;
  const { state, map } = await readProduction(input, reading);
  const next = input.graph.path.find((entry) => entry.revision === start.revision);
  const objectMap =
    next?.transactional === 'yes'
      ? undefined
      : await store.record(boundaryMapName(start.revision), serializeObjectMap(map));
  await recordBoundary(store, {
    before: start.revision,
    rows: state.versionRows,
    objectMapDigest: state.objectMapDigest,
    ...(objectMap && { objectMap }),
    invalidIndexes: state.invalidIndexes,
    at: new Date().toISOString(),
  });
}

/** The exit code is a hint, the database is the answer. */
async function judge(
  { deps, input, reading }: TryContext,
  end: WatchedEnd<AlembicCommandFacts | undefined>,
): Promise<TryEnd> {
  const { result: facts, stop } = end;
  const failed = facts !== undefined && (facts.result.kind !== 'exited' || facts.result.code !== 0);
  const { state } = await readProduction(input, reading);
  const wanted = rowsAtTarget(input.before.versionRows, input.graph);
  const arrived = state.versionRows.join() === wanted.join();
  if (!failed && arrived) return { kind: 'upgraded' };

  const lockOut = lockedOut(facts, end);
  if (lockOut !== undefined) return { kind: 'locked-out', why: lockOut, stop };
  const command = facts?.command ?? 'upgrade';
  if (failed) {
    const { result } = facts;
    const ending = result.kind === 'exited' ? `code ${result.code}` : result.signal;
    const tail = deps.secrets.redactor.redact(result.stderrTail.trim() || result.stdoutTail.trim());
    const limit =
      stop?.kind === 'statement-timeout' || facts.failedOn === 'statement-timeout'
        ? `a statement ran longer than ${input.profile.guard.statementTimeout} ms (guard.statementTimeout): `
        : '';
    throw new StepError(STEP_ERRORS.processFailed, `${limit}alembic ${command} ended with ${lastWords(ending, tail)}`, {
      ending,
    });
  }
  throw new StepError(
    STEP_ERRORS.stateUnexpected,
    `alembic ${command} ended with code 0, but production stands at ${state.versionRows.join(', ') || 'no revision'} instead of ${wanted.join(', ')}: does env.py use the address it is given?`,
  );
}

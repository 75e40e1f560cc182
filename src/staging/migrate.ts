/** The dry run on staging: upgrade to the planned revision, then the project's own migration tests. */
import { resolve } from 'node:path';
import { upgrade } from '../alembic/upgrade.ts';
import { readVersion } from '../alembic/version-table.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { Profile } from '../contract/profile.ts';
import { applicationName, type ConnectionOptions, withConnection } from '../postgres/connection.ts';
import { type ConnectionTarget, describeTarget } from '../postgres/connection-url.ts';
import { captureObjectMap, serializeObjectMap, withoutTable } from '../postgres/catalog/object-map.ts';
import { endSessions } from '../postgres/sessions.ts';
import { endingText, ProcessNotStarted } from '../process/errors.ts';
import type { ProcessResult } from '../process/options.ts';
import type { ProgramLog } from '../process/program-log.ts';
import type { Redactor } from '../process/redactor.ts';
import { runProcess } from '../process/run.ts';
import { servicePython } from '../alembic/service-python.ts';
import type { StagingEnvironments } from './environment.ts';
import { dumpSchema } from './schema-dump.ts';

export interface StagingRun {
  readonly profile: Profile;
  readonly checkout: string;
  readonly environments: StagingEnvironments;
  /** The administrator, in the staging database. */
  readonly administrator: ConnectionTarget;
  /** Login role of the staging migrator. */
  readonly migratorRole: string;
  readonly pgDump: string;
  readonly session: ConnectionOptions;
  readonly redactor: Redactor;
  readonly log: ProgramLog;
  readonly progress: (details: { readonly phase: string; readonly line?: string }) => void;
}

/** What staging is at one moment. */
export interface StagingSnapshot {
  /** Version rows, sorted. */
  readonly revisions: readonly string[];
  /** Canonical JSON of the object map. */
  readonly map: string;
  /** `pg_dump --schema-only`. */
  readonly schema: string;
}

/** What an attempt that was lost has left running on the server is ended before staging is looked at. */
export async function endEarlierAttempt(run: StagingRun): Promise<void> {
  await withConnection(run.administrator, run.session, (client) =>
    endSessions(client, { of: { role: run.migratorRole }, signal: run.session.signal }),
  );
}

export async function readStaging(run: StagingRun): Promise<StagingSnapshot> {
  run.progress({ phase: 'reading staging' });
  const { revisions, map } = await withConnection(run.administrator, run.session, async (client) => {
    const version = await readVersion(client, run.profile.alembic.versionTable);
    if (version.kind === 'unversioned-full') {
      const text = `staging (${describeTarget(run.administrator)}) has tables but no version table: stamp it with the revision it is at, or refresh it from production`;
      throw new StepError(STEP_ERRORS.refused, text, { findings: [text] });
    }
    return {
      revisions: version.kind === 'versioned' ? version.rows : [],
      map: serializeObjectMap(withoutTable(await captureObjectMap(client), run.profile.alembic.versionTable)),
    };
  });
  const schema = await dumpSchema(run.pgDump, run.administrator, {
    signal: run.session.signal,
    redactor: run.redactor,
  });
  return { revisions, map, schema };
}

/**
 * Upgrades staging to the target.
 *
 * @returns milliseconds
 * @throws StepError `ProcessFailed` with the end of Alembic's output
 */
export async function upgradeStaging(run: StagingRun, target: string): Promise<number> {
  const { alembic } = run.profile;
  const directory = resolve(run.checkout, alembic.directory);
  run.log.heading(`alembic upgrade ${target}`);
  const { result } = await notStarted('alembic', () =>
    upgrade({
      target,
      python: servicePython(run.checkout, alembic.python),
      directory,
      config: resolve(run.checkout, alembic.config),
      ...(alembic.commands.upgrade === undefined ? {} : { command: alembic.commands.upgrade }),
      environment: { PGAPPNAME: applicationName(run.session.runId, run.session.step), ...run.environments.migration },
      signal: run.session.signal,
      redactor: run.redactor,
      onLine: (stream, line) => {
        run.log.line(stream, line);
        run.progress({ phase: `alembic upgrade ${target}`, line });
      },
    }),
  );
  requireSuccess(`alembic upgrade ${target} on staging`, result, STEP_ERRORS.processFailed);
  return Math.round(result.durationMilliseconds);
}

/**
 * Runs the project's migration tests in the checkout.
 *
 * @returns the last line of their output, e.g. pytest's summary
 * @throws StepError `CheckFailed` with the end of their output
 */
export async function testMigrations(run: StagingRun): Promise<string> {
  const { tests, testsTimeout } = run.profile.staging;
  const [file = '', ...args] = tests;
  const limit = AbortSignal.timeout(testsTimeout);
  run.log.heading(tests.join(' '));
  let last = '';
  try {
    const result = await notStarted(file, () =>
      runProcess({
        file,
        args,
        directory: run.checkout,
        environment: { PYTHONDONTWRITEBYTECODE: '1', ...run.environments.tests },
        signal: AbortSignal.any([run.session.signal, limit]),
        redactor: run.redactor,
        rowValues: 'struck-out',
        label: file,
        onLine: (stream, line) => {
          if (line.trim() !== '') last = line.trim();
          run.log.line(stream, line);
          run.progress({ phase: tests.join(' '), line });
        },
      }),
    );
    requireSuccess(`the migration tests (${tests.join(' ')})`, result, STEP_ERRORS.checkFailed);
    return last.replaceAll(/^=+ | =+$/g, '').slice(0, 200);
  } catch (error) {
    run.session.signal.throwIfAborted();
    if (!limit.aborted) throw error;
    throw new StepError(STEP_ERRORS.checkFailed, `the migration tests did not end within ${testsTimeout / 1000} s`);
  }
}

async function notStarted<T>(program: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof ProcessNotStarted)) throw error;
    throw new StepError(STEP_ERRORS.refused, `${program}: ${error.message}`, {
      findings: [`${program}: ${error.message}`],
    });
  }
}

function requireSuccess(
  what: string,
  result: ProcessResult,
  type: typeof STEP_ERRORS.processFailed | typeof STEP_ERRORS.checkFailed,
): void {
  if (result.kind === 'exited' && result.code === 0) return;
  const tail = `${result.stdoutTail}${result.stderrTail}`.trim().slice(-1_200);
  throw new StepError(type, endingText(what, result, tail), {
    exitCode: result.kind === 'exited' ? result.code : null,
    tail,
  });
}

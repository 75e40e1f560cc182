/** Alembic's commands on the copy, judged by the version rows they leave. */
import type { AlembicEvent } from '../alembic/barrier.ts';
import { type AlembicCommandFacts, runAlembic } from '../alembic/command.ts';
import { lastWords } from '../process/last-words.ts';
import type { StatementEvent } from '../alembic/statements.ts';
import { readVersion } from '../alembic/version-table.ts';
import type { Reporter } from '../contract/evidence/rehearsal.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { applicationName, withConnection } from '../postgres/connection.ts';
import { endSessions } from '../postgres/sessions.ts';
import { ProcessNotStarted } from '../process/errors.ts';
import type { TrialRequest } from './trial-request.ts';

export interface TrialCommand {
  readonly argument: string;
  /** Null: not known, so not compared. */
  readonly rowsAfter: readonly string[] | null;
}

export interface CommandsRun {
  /** Those that ran, e.g. `downgrade a1`; the last of them may have failed. */
  readonly commands: readonly string[];
  readonly milliseconds: number;
  /** Of the last command. */
  readonly reporter: Reporter;
  readonly failed?: {
    readonly command: string;
    /** That was running, where it is known. */
    readonly revision: string | null;
    readonly why: string;
  };
}

export interface CommandHandlers {
  readonly phase: string;
  readonly onEvent?: (event: AlembicEvent) => void;
  readonly onStatement?: (event: StatementEvent) => void;
  readonly traceLocks?: 'after-each-statement';
}

/**
 * Runs the commands in order, and none after one that failed: by its exit code, or by version rows that are not as planned -
 * some end with code 0 and a traceback, or work on another database than the one they were given.
 */
export async function runCommands(
  request: TrialRequest,
  verb: 'upgrade' | 'downgrade',
  commands: readonly TrialCommand[],
  handlers: CommandHandlers,
): Promise<CommandsRun> {
  const ran: string[] = [];
  let milliseconds = 0;
  let reporter: Reporter = { kind: 'absent', why: 'no command was run' };
  for (const { argument, rowsAfter } of commands) {
    const { facts, revision } = await runOne(request, verb, argument, handlers);
    ran.push(facts.command);
    milliseconds += facts.result.durationMilliseconds;
    reporter = facts.reporter;
    const why = await whyFailed(request, facts, rowsAfter);
    if (why !== undefined) {
      return {
        commands: ran,
        milliseconds: Math.round(milliseconds),
        reporter,
        failed: { command: facts.command, revision, why },
      };
    }
  }
  return { commands: ran, milliseconds: Math.round(milliseconds), reporter };
}

async function runOne(
  request: TrialRequest,
  verb: 'upgrade' | 'downgrade',
  argument: string,
  { phase, onEvent, onStatement, traceLocks }: CommandHandlers,
): Promise<{ readonly facts: AlembicCommandFacts; readonly revision: string | null }> {
  const { alembic, session, redactor } = request;
  const command = alembic.commands[verb];
  // By the barrier, or else by the statements.
  let revision: string | null = null;
  let [line, statement] = ['', ''];
  const report = (): void =>
    request.progress?.({
      phase,
      ...(revision === null ? {} : { revision }),
      ...(statement === '' ? {} : { statement }),
      ...(line === '' ? {} : { line }),
    });
  report();
  request.onLine?.('stdout', `$ alembic ${verb} ${argument} (${phase})`);
  try {
    const facts = await runAlembic(verb, argument, {
      python: alembic.python,
      directory: alembic.directory,
      config: alembic.config,
      environment: alembic.environment,
      ...(command === undefined ? {} : { command }),
      ...(traceLocks === undefined ? {} : { traceLocks }),
      signal: session.signal,
      redactor,
      onEvent: (event) => {
        if (event.event === 'revision-start') revision = event.revision;
        if (event.event === 'revision-applied') revision = null;
        onEvent?.(event);
        report();
      },
      onStatement: (event) => {
        if (event.event === 'statement-start') {
          revision = event.revision ?? revision;
          statement = event.statement.slice(0, 300);
          report();
        }
        onStatement?.(event);
      },
      onLine: (stream, text) => {
        line = text.slice(0, 300);
        request.onLine?.(stream, text);
        report();
      },
    });
    return { facts, revision };
  } catch (error) {
    if (!(error instanceof ProcessNotStarted)) throw error;
    throw new StepError(STEP_ERRORS.refused, `alembic: ${error.message}`, { findings: [`alembic: ${error.message}`] });
  }
}

async function whyFailed(
  request: TrialRequest,
  { command, result }: AlembicCommandFacts,
  rowsAfter: readonly string[] | null,
): Promise<string | undefined> {
  const rows = await settledRows(request);
  const said = request.redactor.redact(result.stderrTail.trim() || result.stdoutTail.trim());
  if (result.kind !== 'exited' || result.code !== 0) {
    return `alembic ${command} ended with ${lastWords(result.kind === 'exited' ? `code ${result.code}` : result.signal, said)}`;
  }
  if (rowsAfter === null || rows.join() === rowsAfter.join()) return undefined;
  const there = rows.join(', ') || 'no revision';
  const traceback = said.includes('Traceback (most recent call last)') ? `; it said ${lastWords('code 0', said)}` : '';
  return `alembic ${command} ended with code 0, but the copy stands at ${there} instead of ${rowsAfter.join(', ') || 'no revision'}: does env.py use the address it is given, and does it let errors through?${traceback}`;
}

/** The version rows, once nobody is left in the copy whose work could still change them. */
export const settledRows = ({ alembic, copy, session }: TrialRequest): Promise<readonly string[]> =>
  withConnection(copy, session, async (client) => {
    // Not our own, which looks at locks meanwhile.
    const own = applicationName(session.runId, session.step);
    await endSessions(client, {
      of: { database: copy.database },
      only: ({ application }) => application !== own,
      signal: session.signal,
    });
    const version = await readVersion(client, alembic.versionTable);
    return version.kind === 'versioned' ? version.rows : [];
  });

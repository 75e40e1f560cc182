import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { z } from 'zod';
import { type StatementLine, statementLines } from './statements.ts';

const direction = z.enum(['upgrade', 'downgrade']);
const alembicEvents = [
  /** `committed`: every revision before it is committed, so the database can be looked at. */
  z.object({ event: z.literal('revision-start'), revision: z.string(), direction, committed: z.boolean() }),
  /** The version rows were written, in a transaction that is still open. */
  z.object({ event: z.literal('revision-applied'), revision: z.string(), direction, rows: z.array(z.string()) }),
  /** This Alembic cannot be held between revisions; the command runs without a barrier. */
  z.object({ event: z.literal('barrier-unavailable'), why: z.string() }),
  z.object({ event: z.literal('finished') }),
] as const;
const writersKeptOut = z.object({
  event: z.literal('writers-kept-out'),
  revision: z.string(),
  at: z.enum(['revision', 'block', 'after-block']),
  /** Whether nothing of the migration's is uncommitted: it may hold locks that keep readers out too. */
  committed: z.boolean(),
  locks: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('taken') }),
    /** Since the last time it was said, in a transaction that is still open. */
    z.object({ kind: z.literal('held') }),
    z.object({ kind: z.literal('none'), why: z.string() }),
  ]),
});
const reporterEvents = [
  /** Alembic reaches a database, and our part watches its statements. */
  z.object({ event: z.literal('reporter-loaded') }),
  z.object({ event: z.literal('reporter-absent'), why: z.string() }),
  z.object({ event: z.literal('note'), text: z.string() }),
  /** Statements that were not told, because nobody read. */
  z.object({ event: z.literal('dropped'), count: z.number() }),
] as const;
const line = z.discriminatedUnion('event', [
  ...alembicEvents,
  ...reporterEvents,
  ...statementLines,
  writersKeptOut,
  /**
   * A revision that began in the open transaction of those before it has entered an autocommit block before doing anything
   * else: what was before it is committed now.
   */
  z.object({ event: z.literal('block-start'), revision: z.string(), direction }),
  /** Nothing follows; answered, so that a process does not end before it has been heard out. */
  z.object({ event: z.literal('end') }),
]);

/** What our part tells of the revisions while Alembic runs. */
export type AlembicEvent = z.infer<(typeof alembicEvents)[number]>;
export type RevisionStart = Extract<AlembicEvent, { event: 'revision-start' }>;
/**
 * Tables are locked against writers, or cannot be: before a downgrade's revision; in an autocommit block, in which nothing can
 * be locked; and after such a block, or after a COMMIT of the revision's own, which gave the locks away.
 */
export type WritersKeptOut = z.infer<typeof writersKeptOut>;
/** What it tells of itself. */
export type ReporterEvent = z.infer<(typeof reporterEvents)[number]>;

export interface BarrierHandlers {
  readonly onEvent?: (event: AlembicEvent) => void;
  /**
   * Called before each revision, which waits for it: what is to be durable at this point is written down here. While
   * `committed` is false the migration's transaction is open and holds its locks: set a lock_timeout for whatever is
   * read meanwhile, or leave it. A revision that begins so is asked about once more, with `committed`, where the first thing
   * it does is to enter an autocommit block, which commits what was before it. If it throws, the command is stopped before the revision has done anything.
   */
  readonly atBoundary?: (revision: RevisionStart) => Promise<void>;
  /** Called where `AlembicCommandOptions.keepWritersOut` names tables; Alembic waits for it. If it throws, it is stopped there. */
  readonly atWritersKeptOut?: (told: WritersKeptOut) => Promise<void>;
}

export interface ReportHandlers {
  readonly onReporter: (event: ReporterEvent) => void;
  readonly onStatementLine: (line: StatementLine) => void;
}

/**
 * Answers a process until it closes its end. Rejects with what a handler threw, after telling the process to stop.
 */
export async function holdBarrier(
  events: Readable,
  answers: Writable,
  handlers: BarrierHandlers & ReportHandlers,
): Promise<void> {
  const lines = createInterface({ input: events });
  events.once('close', () => lines.close());
  try {
    for await (const text of lines) {
      const told = line.parse(JSON.parse(text));
      switch (told.event) {
        case 'statement-start':
        case 'statement':
        case 'transaction-end':
          handlers.onStatementLine(told);
          break;
        case 'reporter-loaded':
        case 'reporter-absent':
        case 'note':
        case 'dropped':
          handlers.onReporter(told);
          break;
        case 'block-start':
          await handlers.atBoundary?.({ ...told, event: 'revision-start', committed: true });
          answers.write('ok\n');
          break;
        case 'writers-kept-out':
          await handlers.atWritersKeptOut?.(told);
          answers.write('ok\n');
          break;
        case 'end':
          answers.write('ok\n');
          break;
        case 'revision-start':
          handlers.onEvent?.(told);
          await handlers.atBoundary?.(told);
          answers.write('ok\n');
          break;
        case 'revision-applied':
        case 'barrier-unavailable':
        case 'finished':
          handlers.onEvent?.(told);
      }
    }
  } catch (error) {
    answers.write('stop\n');
    throw error;
  } finally {
    lines.close();
  }
}

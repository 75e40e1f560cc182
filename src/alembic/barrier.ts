import { createInterface } from 'node:readline';
import type { Duplex } from 'node:stream';
import { z } from 'zod';

const direction = z.enum(['upgrade', 'downgrade']);
const event = z.discriminatedUnion('event', [
  /** `committed`: every revision before it is committed, so the database can be looked at. */
  z.object({ event: z.literal('revision-start'), revision: z.string(), direction, committed: z.boolean() }),
  /** The version rows were written, in a transaction that is still open. */
  z.object({ event: z.literal('revision-applied'), revision: z.string(), direction, rows: z.array(z.string()) }),
  /** This Alembic cannot be held between revisions; the command runs without a barrier. */
  z.object({ event: z.literal('barrier-unavailable'), why: z.string() }),
  z.object({ event: z.literal('finished') }),
]);

/** What the launcher tells while Alembic runs. */
export type AlembicEvent = z.infer<typeof event>;
export type RevisionStart = Extract<AlembicEvent, { event: 'revision-start' }>;

export interface BarrierHandlers {
  readonly onEvent?: (event: AlembicEvent) => void;
  /**
   * Called before each revision, which waits for it: what is to be durable at this point is written down here. While
   * `committed` is false the migration's transaction is open and holds its locks: set a lock_timeout for whatever is
   * read meanwhile, or leave it. If it throws, the command is stopped before the revision has done anything.
   */
  readonly atBoundary?: (revision: RevisionStart) => Promise<void>;
}

/**
 * Answers the launcher until it closes its end. Rejects with what a handler threw, after telling the launcher to stop.
 */
export async function holdBarrier(events: Duplex, answers: Duplex, handlers: BarrierHandlers): Promise<void> {
  const lines = createInterface({ input: events });
  events.once('close', () => lines.close());
  try {
    for await (const line of lines) {
      const told = event.parse(JSON.parse(line));
      handlers.onEvent?.(told);
      if (told.event !== 'revision-start') continue;
      await handlers.atBoundary?.(told);
      answers.write('ok\n');
    }
  } catch (error) {
    answers.write('stop\n');
    throw error;
  } finally {
    lines.close();
  }
}

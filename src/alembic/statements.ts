import { z } from 'zod';
import { STATEMENT_CLASSES, type StatementClass } from '../contract/evidence/rehearsal.ts';
import { qualifiedName } from '../postgres/identifier.ts';
import type { Redactor } from '../process/redactor.ts';

/** Characters of a statement that are reported. */
const longestStatement = 2_000;

const begun = {
  /** Null: before the first revision, or after the last. */
  revision: z.string().nullable(),
  class: z.enum(STATEMENT_CLASSES),
  statement: z.string(),
  /** Milliseconds since 1970. */
  startedAt: z.number(),
};

/** Lines about statements, as our part inside the service's Python writes them. */
export const statementLines = [
  z.object({ event: z.literal('statement-start'), ...begun }),
  z.object({
    event: z.literal('statement'),
    ...begun,
    milliseconds: z.number(),
    rows: z.number().nullable(),
    transaction: z.number(),
    sqlstate: z.string().optional(),
    /** The time limit that ended it. */
    limit: z.enum(['lock', 'statement']).optional(),
    /** Schema, name, mode. `same`: as after the statement before it in this transaction. */
    locks: z.union([z.array(z.tuple([z.string(), z.string(), z.string()])), z.literal('same')]).optional(),
  }),
  z.object({ event: z.literal('transaction-end'), transaction: z.number(), at: z.number() }),
] as const;

export type StatementLine = z.infer<(typeof statementLines)[number]>;

/** A lock on a relation; `relation` is qualified and quoted as in the object map. */
export interface RelationLock {
  readonly relation: string;
  readonly mode: string;
}

/** What the migration asks of the database, as it happens. Times: milliseconds since 1970, durations: milliseconds. */
export type StatementEvent =
  | {
      readonly event: 'statement';
      readonly revision: string | null;
      readonly class: StatementClass;
      /** Parameters are left out, literals of statements that touch rows and passwords struck out; 2,000 characters at most. */
      readonly statement: string;
      readonly startedAt: number;
      readonly milliseconds: number;
      readonly rows: number | null;
      /** Counted from 1 in one process; `transaction-end` names it too. */
      readonly transaction: number;
      /** Of the error it ended with. */
      readonly sqlstate?: string;
      /**
       * All locks on ordinary relations that the session holds after it, while its transaction is open. A relation is called
       * as it was when the run first saw it. Absent: not looked at, or the transaction ended with the statement.
       */
      readonly locks?: readonly RelationLock[];
    }
  | {
      readonly event: 'statement-start';
      readonly revision: string | null;
      readonly class: StatementClass;
      readonly statement: string;
      readonly startedAt: number;
    }
  | { readonly event: 'transaction-end'; readonly transaction: number; readonly at: number };

export type FailedOn = 'lock-timeout' | 'statement-timeout';

/** Turns the lines of one process into events, and remembers what the end of the command is judged by. */
export class StatementReader {
  readonly #redactor: Redactor;
  readonly #open = new Set<number>();
  #locks: readonly RelationLock[] = [];
  /** Of the last statement that was more than cleaning up. */
  #lastFailure: FailedOn | 'other' | undefined;

  constructor(redactor: Redactor) {
    this.#redactor = redactor;
  }

  read(line: StatementLine): StatementEvent {
    switch (line.event) {
      case 'transaction-end':
        this.#open.delete(line.transaction);
        return line;
      case 'statement-start':
        return { ...line, statement: this.#shown(line.statement) };
      case 'statement': {
        this.#open.add(line.transaction);
        const { limit, locks, statement, sqlstate, ...told } = line;
        if (sqlstate !== undefined) this.#lastFailure = failedOn(sqlstate, limit);
        else if (getsOn(line)) this.#lastFailure = undefined;
        if (Array.isArray(locks)) {
          this.#locks = locks.map(([schema, name, mode]) => ({ relation: qualifiedName(schema, name), mode }));
        }
        return {
          ...told,
          statement: this.#shown(statement),
          ...(sqlstate === undefined ? {} : { sqlstate }),
          ...(locks === undefined ? {} : { locks: this.#locks }),
        };
      }
    }
  }

  /** Ends of transactions that nobody told, because the process was ended: the server takes them back. */
  end(at: number): readonly StatementEvent[] {
    const ends = [...this.#open].map((transaction) => ({ event: 'transaction-end', transaction, at }) as const);
    this.#open.clear();
    return ends;
  }

  /** The time limit that a command failed on: a failure after which the migration got on is none. */
  get failedOn(): FailedOn | undefined {
    return this.#lastFailure === 'other' ? undefined : this.#lastFailure;
  }

  #shown(statement: string): string {
    return this.#redactor.redactStart(statement, longestStatement);
  }
}

/**
 * Does the migration get on by this statement? What comes after a failure in any case does not tell: ROLLBACK, SET, the release
 * of an advisory lock.
 */
export const getsOn = ({
  class: kind,
  statement,
}: {
  readonly class: StatementClass;
  readonly statement: string;
}): boolean => kind !== 'session' && !/\bpg_advisory_unlock/i.test(statement);

/** lock_not_available and query_canceled (PostgreSQL documentation, Error Codes); the latter is also said of a cancel. */
function failedOn(sqlstate: string, limit: 'lock' | 'statement' | undefined): FailedOn | 'other' {
  if (sqlstate === '55P03') return 'lock-timeout';
  return sqlstate === '57014' && limit === 'statement' ? 'statement-timeout' : 'other';
}

/** The same, from what a command without our part has written: PostgreSQL's messages in English. */
export function failedOnByText(stderr: string): FailedOn | undefined {
  if (/canceling statement due to lock timeout/.test(stderr)) return 'lock-timeout';
  return /canceling statement due to statement timeout/.test(stderr) ? 'statement-timeout' : undefined;
}

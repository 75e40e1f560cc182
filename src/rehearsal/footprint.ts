/** What an upgrade was seen to do, added up while it runs: a data migration may have more statements than fit in memory. */
import type { AlembicEvent } from '../alembic/barrier.ts';
import type { StatementEvent } from '../alembic/statements.ts';
import type { ArchivedFootprint, LockHeld, StatementTime, UpgradeFootprint } from '../contract/evidence/rehearsal.ts';
import type { SampledLock } from './lock-sampling.ts';

/** Entries of an archived footprint: beyond it only the longest statements are kept. */
const KEPT = 5000;
const SLOWEST = 20;
const LOCKS = 50;
const REVISIONS = 200;
const SHOWN = 300;

/** Modes that keep readers' or writers' ordinary work out (PostgreSQL documentation, "Explicit Locking"). */
const KEEPS_OUT = new Set(['ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock']);

interface OpenLock {
  readonly relation: string;
  readonly mode: string;
  readonly revision: string | null;
  readonly since: number;
}

interface RevisionSpan {
  readonly revision: string;
  readonly from: number;
  to: number;
  statements: number;
}

/** A statement that changes definitions, as a linter is given it. */
export interface DefinitionStatement {
  readonly revision: string | null;
  readonly statement: string;
  /** Those of one transaction share the number. */
  readonly transaction: number;
}

/** Feed it with what the upgrade tells, in order; times are milliseconds since the epoch. */
export class FootprintRecorder {
  readonly #ddl: DefinitionStatement[] = [];
  readonly #open = new Map<number, Map<string, OpenLock>>();
  readonly #held = new Map<string, LockHeld>();
  readonly #spans: RevisionSpan[] = [];
  /** The first transaction of a revision. */
  readonly #transactions = new Map<string, number>();
  readonly #commits = new Set<string>();
  #times: StatementTime[] = [];
  #bounded = false;
  #told = false;

  /** Anything seen from inside? */
  get told(): boolean {
    return this.#told;
  }

  /** Statements that change definitions, in order: what a linter looks at. */
  get definitions(): readonly DefinitionStatement[] {
    return this.#ddl;
  }

  /** Revisions whose statements, the version row's included, were in more than one transaction. */
  get commits(): ReadonlySet<string> {
    return this.#commits;
  }

  onEvent(event: AlembicEvent, now: number): void {
    const last = this.#spans.at(-1);
    if (event.event === 'revision-start') {
      if (last !== undefined) last.to = now;
      this.#spans.push({ revision: event.revision, from: now, to: now, statements: 0 });
    } else if (event.event === 'revision-applied' || event.event === 'finished') {
      if (last !== undefined) last.to = now;
    }
  }

  onStatement(event: StatementEvent): void {
    this.#told = true;
    switch (event.event) {
      case 'statement-start':
        return;
      case 'transaction-end':
        this.#endTransaction(event.transaction, event.at);
        return;
      case 'statement':
        this.#addStatement(event);
        if (event.locks !== undefined) this.#addLocks(event, event.locks);
    }
  }

  #addStatement({ revision, statement, class: kind, milliseconds, rows, startedAt, transaction }: Ended): void {
    this.#times.push({ revision, statement: statement.slice(0, SHOWN), class: kind, milliseconds, rows });
    if (this.#times.length > 2 * KEPT) {
      this.#times = longest(this.#times, KEPT);
      this.#bounded = true;
    }
    if ((kind === 'exclusive' || kind === 'concurrent') && this.#ddl.length < KEPT)
      this.#ddl.push({ revision, statement, transaction });
    if (revision === null) return;
    if (kind !== 'session' && this.#transactions.get(revision) !== transaction) {
      if (this.#transactions.has(revision)) this.#commits.add(revision);
      this.#transactions.set(revision, transaction);
    }
    let span = this.#spans.findLast((known) => known.revision === revision);
    if (span === undefined) {
      // No barrier here: a revision lasts from its first statement to its last.
      span = { revision, from: startedAt, to: startedAt, statements: 0 };
      this.#spans.push(span);
    }
    span.statements += 1;
    span.to = Math.max(span.to, startedAt + milliseconds);
  }

  /** `held`: all that the session holds after the statement. What was taken by it is held since it began. */
  #addLocks({ transaction, revision, startedAt, milliseconds }: Ended, held: NonNullable<Ended['locks']>): void {
    const open = this.#open.get(transaction) ?? new Map<string, OpenLock>();
    this.#open.set(transaction, open);
    const present = new Set<string>();
    for (const { relation, mode } of held) {
      const key = `${mode} ${relation}`;
      present.add(key);
      if (!open.has(key)) open.set(key, { relation, mode, revision, since: startedAt });
    }
    for (const [key, lock] of open) {
      // Given back before the end: a savepoint was rolled back.
      if (!present.has(key)) {
        open.delete(key);
        this.#close(lock, startedAt + milliseconds);
      }
    }
  }

  #endTransaction(transaction: number, at: number): void {
    for (const lock of this.#open.get(transaction)?.values() ?? []) this.#close(lock, at);
    this.#open.delete(transaction);
  }

  #close({ relation, mode, revision, since }: OpenLock, at: number): void {
    const key = `${mode} ${relation}`;
    const known = this.#held.get(key);
    const milliseconds = Math.max(0, Math.round(at - since));
    this.#held.set(key, {
      relation,
      mode,
      milliseconds: Math.max(known?.milliseconds ?? 0, milliseconds),
      revision: known === undefined ? revision : known.revision,
    });
  }

  /**
   * @param existing names of relations that were there before: others have no users yet
   * @param sampled what was seen from outside; counts only where nothing was told from inside
   */
  finish(now: number, existing: ReadonlySet<string>, sampled: readonly SampledLock[]): RecordedFootprint {
    for (const transaction of this.#open.keys()) this.#endTransaction(transaction, now);
    const locks = (this.#told ? [...this.#held.values()] : sampled.map((lock) => asHeld(lock, this.#spans)))
      .filter(({ relation }) => existing.has(relation))
      .reduce(keepLongest, new Map<string, LockHeld>());
    const all = [...locks.values()].sort((one, other) => other.milliseconds - one.milliseconds);
    const statements = this.#bounded || this.#times.length > KEPT ? longest(this.#times, KEPT) : this.#times;
    return {
      seen: {
        revisions: this.#spans.slice(0, REVISIONS).map(({ revision, from, to, statements: count }) => ({
          revision,
          milliseconds: Math.round(to - from),
          statements: count,
        })),
        slowest: longest(this.#times, SLOWEST).sort((one, other) => other.milliseconds - one.milliseconds),
        locks: all.filter(({ mode }) => KEEPS_OUT.has(mode)).slice(0, LOCKS),
      },
      archived: {
        format: 'migration-runbook/footprint/1',
        statements,
        locks: all,
        locksBy: this.#told ? 'statements' : 'sampled',
      },
    };
  }
}

type Ended = Extract<StatementEvent, { event: 'statement' }>;

export interface RecordedFootprint {
  readonly seen: Pick<UpgradeFootprint, 'revisions' | 'slowest' | 'locks'>;
  readonly archived: ArchivedFootprint;
}

/** In the order in which they ran. */
function longest(times: readonly StatementTime[], count: number): StatementTime[] {
  const kept = new Set([...times].sort((one, other) => other.milliseconds - one.milliseconds).slice(0, count));
  return times.filter((time) => kept.has(time));
}

const asHeld = ({ relation, mode, first, last }: SampledLock, spans: readonly RevisionSpan[]): LockHeld => ({
  relation,
  mode,
  milliseconds: Math.round(last - first),
  revision: spans.findLast(({ from }) => from <= first)?.revision ?? null,
});

function keepLongest(found: Map<string, LockHeld>, lock: LockHeld): Map<string, LockHeld> {
  const key = `${lock.mode} ${lock.relation}`;
  const known = found.get(key);
  if (known === undefined) found.set(key, lock);
  else if (lock.milliseconds > known.milliseconds) found.set(key, { ...known, milliseconds: lock.milliseconds });
  return found;
}

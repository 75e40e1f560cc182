import type { WritersKeptOut } from '../../alembic/barrier.ts';
import type { AlembicCommandFacts, AlembicCommandOptions } from '../../alembic/command.ts';
import { refuseArrivalsSince } from '../../archive/arrivals-since.ts';
import type { RollbackInput } from '../../contract/evidence/rollback.ts';
import { sqlNameOf } from '../../postgres/identifier.ts';
import type { GuardedProduction } from '../apply/production-guard.ts';

const NOTED = 20;

/**
 * Sees to it that a rollback drops nothing that came after it was counted and shown. Right before each revision of the
 * downgrade, our part inside the service's Python locks what is dropped against writers, in the revision's transaction; then
 * it is counted again from here, and Alembic is stopped where there is more. Where our part is absent, or cannot lock, it is
 * counted all the same, and `uncounted` says what that leaves open.
 */
export class RollbackArrivals {
  readonly #input: RollbackInput;
  readonly #production: GuardedProduction;
  readonly #step: string;
  readonly #notes = new Set<string>();
  #heard = 0;
  #unknownFromOutside: readonly string[] = [];

  constructor(input: RollbackInput, production: GuardedProduction, step: string) {
    this.#input = input;
    this.#production = production;
    this.#step = step;
  }

  /** Not behind a fence, and not where nothing is dropped. */
  get isCounting(): boolean {
    return this.#input.arrivals !== null && this.#input.dropped.length > 0;
  }

  get notes(): readonly string[] {
    return [...this.#notes];
  }

  /** What tries before this one left open. */
  remember(notes: readonly string[]): void {
    for (const note of notes) this.#notes.add(note);
  }

  get handlers(): Pick<AlembicCommandOptions, 'keepWritersOut' | 'atWritersKeptOut'> {
    if (!this.isCounting) return {};
    const { dropped } = this.#input;
    return {
      keepWritersOut: [...new Set(dropped.map(({ table }) => sqlNameOf(table)))],
      atWritersKeptOut: (told) => this.#keptOut(told),
    };
  }

  /** Counts from outside: nobody knows yet whether our part will be inside, and what is there already needs no Alembic. */
  async beforeAlembic(): Promise<void> {
    this.#heard = 0;
    this.#unknownFromOutside = await this.#count('told');
  }

  /** Of a command that ended well, or that has moved production before it failed. */
  commandEnded({ command, barrier, reporter }: Pick<AlembicCommandFacts, 'command' | 'barrier' | 'reporter'>): void {
    if (!this.isCounting || this.#heard > 0) return;
    if (barrier === 'held' && reporter.kind === 'loaded') return;
    this.#tellUnknown(this.#unknownFromOutside);
    this.#notes.add(
      `"alembic ${command}" could not be held: what came into the dropped objects while it ran, or in transactions then in flight, was not counted`,
    );
  }

  get uncounted(): string | null {
    return this.#notes.size === 0 ? null : [...this.#notes].slice(0, NOTED).join('; ').slice(0, 2000);
  }

  async #keptOut({ revision, at, committed, locks }: WritersKeptOut): Promise<void> {
    this.#heard += 1;
    if (locks.kind === 'held') return;
    // An open transaction of the migration's own may hold what is to be counted.
    this.#tellUnknown(await this.#count(committed ? 'refused' : 'told'));
    if (locks.kind === 'taken') return;
    const where = at === 'block' ? `in an autocommit block of ${revision}` : `in ${revision}`;
    this.#notes.add(
      `${where} writers could not be kept out (${locks.why}): what came after the last count, or in transactions then in flight, was not counted`,
    );
  }

  #tellUnknown(objects: readonly string[]): void {
    for (const object of objects) this.#notes.add(`nobody knows what came into ${object}`);
  }

  async #count(notCountable: 'refused' | 'told'): Promise<readonly string[]> {
    const { arrivals, dropped, run } = this.#input;
    if (arrivals === null || dropped.length === 0) return [];
    const { administrator, signal } = this.#production;
    return refuseArrivalsSince({
      administrator,
      runId: run.runId,
      step: this.#step,
      signal,
      dropped,
      shown: arrivals,
      notCountable,
    });
  }
}

/** Time limits that a revision sets itself: they are left alone, so what the plan says of the guard's does not hold there. */
import type { StatementEvent } from '../alembic/statements.ts';

/** Not by `set_config`, whose arguments are values and struck out. */
const SETS = /\bSET\b/i;
const LIMITS = ['lock_timeout', 'statement_timeout'];
const LISTED = 20;

/** Feed it with what the upgrade tells. */
export class OwnLimits {
  readonly #found = new Set<string>();

  onStatement(event: StatementEvent): void {
    if (event.event !== 'statement' || event.sqlstate !== undefined || !SETS.test(event.statement)) return;
    const text = event.statement.toLowerCase();
    for (const limit of LIMITS.filter((name) => text.includes(name))) {
      this.#found.add(
        `${event.revision === null ? 'the service' : `revision ${event.revision}`} sets ${limit} itself, and is left alone`,
      );
    }
  }

  /** In words for the plan. */
  get unknown(): readonly string[] {
    return [...this.#found]
      .slice(0, LISTED)
      .map(
        (line) =>
          `how long it waits or runs: ${line}; the watch from outside steps in a second after the guard's limit`,
      );
  }
}

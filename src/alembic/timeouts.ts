import type { StatementClass, StatementTimeouts } from '../contract/evidence/rehearsal.ts';

/** What one statement may wait for and take, milliseconds; 0 = no limit. */
export interface StatementLimit {
  readonly lock: number;
  readonly statement: number;
}

/**
 * The limits of each class of statement, as our part inside the service's Python sets them. `session` has none of its own:
 * such statements wait for nothing, and a query before `SET TRANSACTION` or `LOCK` would change what they mean.
 */
export function limitsByClass(
  timeouts: StatementTimeouts,
): Readonly<Record<Exclude<StatementClass, 'session'>, StatementLimit>> {
  const brief = { lock: timeouts.lock, statement: timeouts.statement };
  return {
    exclusive: brief,
    rows: brief,
    concurrent: { lock: timeouts.concurrentLock, statement: timeouts.concurrentStatement },
  };
}

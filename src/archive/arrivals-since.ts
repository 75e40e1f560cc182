import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { Arrivals } from '../contract/evidence/rollback.ts';
import type { DroppedObject } from '../contract/evidence/rehearsal.ts';
import type { ConnectionTarget } from '../postgres/connection-url.ts';
import { withConnection } from '../postgres/connection.ts';
import { pinFormats } from '../postgres/contents/row-hash.ts';
import { LIMITS, SHOWN } from './arrivals.ts';
import { arrived, type CountedObject, countObjects } from './arrivals-count.ts';

export interface SinceRequest {
  /** Production's administrator. */
  readonly administrator: ConnectionTarget;
  readonly runId: string;
  readonly step: string;
  readonly signal: AbortSignal;
  readonly dropped: readonly DroppedObject[];
  /** What the rollback was decided on. */
  readonly shown: Arrivals['objects'];
  /** What was counted before and cannot be now, because it is locked or takes too long. */
  readonly notCountable: 'refused' | 'told';
}

/**
 * Counts once more what is in objects that the downgrade drops.
 * @returns what cannot be compared with what was shown, in words
 * @throws StepError `CheckFailed` where there is more than was shown, or nobody can know
 */
export async function refuseArrivalsSince(request: SinceRequest): Promise<readonly string[]> {
  const { administrator, runId, step, signal, dropped, shown } = request;
  const session = { runId, step, signal, statementTimeout: 0, idleTimeout: 0 };
  const counted = await withConnection(administrator, session, async (client) => {
    await pinFormats(client);
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    return countObjects(client, dropped, LIMITS, () => undefined);
  });
  const known = knownBefore(shown);
  const came = counted.objects.flatMap((object) => {
    const before = known(object);
    return before !== undefined && object.found > before ? [{ object, count: object.found - before }] : [];
  });
  if (came.length > 0) {
    const sum = came.reduce((total, { count }) => total + count, 0);
    const where = came
      .slice(0, 10)
      .map(({ object, count }) => (came.length > 1 ? `${count} in ` : '') + labelOf(object));
    throw new StepError(
      STEP_ERRORS.checkFailed,
      `${sum} row(s) or value(s) came into ${where.join(', ')} since they were counted, and the rollback would drop them: they are counted and exported anew, decide again`,
      { came: came.slice(0, 100).map(({ object, count }) => `${labelOf(object)}: ${count}`) },
    );
  }
  const reached = new Set(counted.objects.map(keyOf));
  const missed = dropped.filter(
    (object) => !reached.has(keyOf(object)) && known({ ...object, found: 0 }) !== undefined,
  );
  if (missed.length > 0 && request.notCountable === 'refused') {
    throw new StepError(
      STEP_ERRORS.checkFailed,
      `what came into objects that the rollback would drop cannot be counted again right before: ${counted.unknown.slice(0, 5).join(', ')}: decide again`,
    );
  }
  const uncounted = counted.objects.filter((object) => arrived(object) > 0 && known(object) === undefined).map(labelOf);
  return [...uncounted.map((label) => `${label} (not counted before)`), ...counted.unknown];
}

/** The list of what was shown is cut, with the most arrivals first: what is beyond it had no more than its last. */
function knownBefore(shown: Arrivals['objects']): (object: CountedObject) => number | undefined {
  const found = new Map(shown.map((object) => [keyOf(object), object.found]));
  const last = shown.at(-1);
  const most = shown.length < SHOWN || last === undefined ? undefined : arrived(last);
  return (object) => found.get(keyOf(object)) ?? (most === undefined ? undefined : object.rows + most);
}

const keyOf = ({ table, column }: DroppedObject): string => JSON.stringify([table, column]);
const labelOf = ({ table, column }: DroppedObject): string => (column === null ? table : `${table}.${column}`);

import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from 'pg';
import type { ReplicationEvidence } from '../contract/evidence/production.ts';
import type { ProductionDatabase } from '../contract/profile.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { isInRecovery } from './identity.ts';

export type ReplicationLimits = Pick<ProductionDatabase, 'standbys' | 'maximumLagBytes' | 'maximumLag'>;

/**
 * Milliseconds within which every named standby must have been seen healthy: a standby as far behind as is allowed needs the
 * allowed time to replay the position of the first look.
 */
const patienceFor = ({ maximumLag }: ReplicationLimits): number => Math.min(Math.max(5_000, maximumLag), 60_000);

/**
 * Are the named standbys streaming, and near? Asked of the primary: on the primary the document's
 * `pg_last_xact_replay_timestamp()` is NULL, and on an idle standby it grows although nothing lags. Fails closed: what is
 * missing or NULL is not healthy.
 *
 * Bytes are counted from the primary's position at each look. Time counts only once the standby is seen to replay: with
 * nothing left it is 0; when the position of the first look has been replayed it is `replay_lag`, or the time that took
 * where an idle primary leaves that NULL. A standby that stands still keeps its last `replay_lag`, however small.
 *
 * @param client of a role with pg_monitor, on the primary
 * @throws StepError `CheckFailed` naming each standby and why; `StepRefused` when the server is itself a standby
 */
export async function checkReplication(
  client: Client,
  limits: ReplicationLimits,
  signal: AbortSignal,
): Promise<ReplicationEvidence> {
  if ((await isInRecovery(client)) === 'standby') {
    throw new StepError(
      STEP_ERRORS.refused,
      'the production address leads to a standby (the server is in recovery): give the address of the primary',
      { findings: ['production is in recovery'] },
    );
  }
  const started = Date.now();
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn');
  for (;;) {
    signal.throwIfAborted();
    const senders = await listSenders(client, rows[0]!.lsn);
    const elapsed = Date.now() - started;
    const verdicts = limits.standbys.map(({ name }) => judge(name, senders, limits, elapsed));
    const sick = verdicts.filter((verdict) => verdict.kind === 'unhealthy');
    if (sick.length === 0) {
      return { standbys: verdicts.flatMap((verdict) => (verdict.kind === 'healthy' ? [verdict.standby] : [])) };
    }
    if (elapsed > patienceFor(limits)) {
      throw new StepError(
        STEP_ERRORS.checkFailed,
        `replication is not healthy: ${sick.map(({ why }) => why).join('; ')}`,
        { findings: sick.map(({ why }) => why), senders },
      );
    }
    await pause(200, undefined, { signal });
  }
}

interface Sender {
  readonly name: string;
  readonly state: string | null;
  readonly lagBytes: number | null;
  readonly lagMilliseconds: number | null;
  /** Has the standby replayed the position of the first look? */
  readonly caughtUp: boolean | null;
}

async function listSenders(client: Client, firstLook: string): Promise<Sender[]> {
  const { rows } = await client.query<Sender>(
    `SELECT application_name AS "name", state,
            pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::float8 AS "lagBytes",
            (extract(epoch FROM replay_lag) * 1000)::float8 AS "lagMilliseconds",
            replay_lsn >= $1::pg_lsn AS "caughtUp"
     FROM pg_stat_replication ORDER BY application_name`,
    [firstLook],
  );
  return rows;
}

type Verdict =
  | { readonly kind: 'healthy'; readonly standby: ReplicationEvidence['standbys'][number] }
  | { readonly kind: 'unhealthy'; readonly why: string };

function judge(name: string, senders: readonly Sender[], limits: ReplicationLimits, elapsed: number): Verdict {
  const unhealthy = (why: string): Verdict => ({ kind: 'unhealthy', why: `standby "${name}" ${why}` });
  const found = senders.filter((sender) => sender.name === name);
  const [sender] = found;
  if (sender === undefined) return unhealthy('is not connected to the primary');
  if (found.length > 1) return unhealthy(`is there ${found.length} times: standbys need names of their own`);
  if (sender.state === null) return unhealthy('shows no state: the administrator lacks pg_monitor');
  if (sender.state !== 'streaming') return unhealthy(`is in state "${sender.state}", not streaming`);
  if (sender.lagBytes === null)
    return unhealthy('reports no position: it replays nothing (a receiver without a database?)');
  if (sender.lagBytes > limits.maximumLagBytes) {
    return unhealthy(`is ${sender.lagBytes} bytes behind, ${limits.maximumLagBytes} are allowed`);
  }
  if (sender.lagBytes > 0 && sender.caughtUp !== true) {
    return unhealthy(`has not replayed in ${elapsed} ms what was written before (${sender.lagBytes} bytes behind)`);
  }
  const time = sender.lagBytes <= 0 ? 0 : (sender.lagMilliseconds ?? elapsed);
  if (time > limits.maximumLag) return unhealthy(`is ${Math.round(time)} ms behind, ${limits.maximumLag} are allowed`);
  return {
    kind: 'healthy',
    standby: {
      name,
      state: sender.state,
      lagBytes: Math.max(0, sender.lagBytes),
      lagMilliseconds: Math.max(0, Math.round(time)),
    },
  };
}

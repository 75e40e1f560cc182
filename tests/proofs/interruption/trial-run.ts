/** Starts an upgrade of the small service that is made to be interrupted, and waits until it is where that is to happen. */
import type { Client as TemporalClient, WorkflowHandle } from '@temporalio/client';
import type { Client } from 'pg';
import type { GraphEvidence } from '../../../src/contract/evidence/tooling.ts';
import { TASK_QUEUE } from '../../../src/contract/request.ts';
import { eventually } from './progress.ts';
import type { TrialService } from './trial-service.ts';
import type { UpgradeTrialInput } from './upgrade-trial.ts';

export interface TrialOptions extends Pick<UpgradeTrialInput, 'targetRevision' | 'afterTrouble'> {
  readonly driver: 'psycopg2' | 'psycopg' | 'asyncpg';
  /** One transaction for each revision, or one for all. */
  readonly perRevision: 'yes' | 'no';
  /** Tells its processes from those of others. */
  readonly mark: string;
  readonly graph?: GraphEvidence;
}

const VARIABLE = 'INTERRUPTED';

/** As it stands in the environment of the processes. */
export const environmentOf = (mark: string): string => `${VARIABLE}=${mark}`;

/** What an Alembic has to be given so that its processes are known by the mark. */
export const markedEnvironment = (mark: string): Readonly<Record<string, string>> => ({ [VARIABLE]: mark });

export function startTrial(
  client: TemporalClient,
  { profile, commit, footprint }: TrialService,
  { driver, perRevision, mark, graph, targetRevision, afterTrouble }: TrialOptions,
): Promise<WorkflowHandle> {
  const { service, alembic } = profile;
  const input: UpgradeTrialInput = {
    run: { service, releaseTag: 'v1', changeTicket: 'CHG-1042', requestedBy: 'dana@example.com', commit },
    profile: {
      ...profile,
      alembic: {
        ...alembic,
        urlScheme: `postgresql+${driver}`,
        environment: { TRANSACTION_PER_MIGRATION: perRevision, ...markedEnvironment(mark) },
      },
    },
    targetRevision,
    footprint,
    afterTrouble,
    ...(graph && { graph }),
  };
  return client.workflow.start('upgradeTrial', {
    taskQueue: TASK_QUEUE,
    workflowId: `trial-${mark}-${Date.now()}`,
    args: [input],
  });
}

/** Begins a transaction that holds something, with a snapshot that is older than whatever the migration does. */
export async function hold(client: Client, statement: string): Promise<void> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await client.query(statement);
}

/** Waits until a query has a row; `$1` is the migrator's role. */
export const reach = (client: Client, question: string, role: string): Promise<true> =>
  eventually('the upgrade is where it is to be interrupted', async () => {
    const { rows } = await client.query(question, question.includes('$1') ? [role] : []);
    return rows.length > 0 ? true : undefined;
  });

export const WAITS_FOR_LOCK = `SELECT FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'`;
export const WAITS_IN_BUILD = `${WAITS_FOR_LOCK} AND EXISTS (SELECT FROM pg_index WHERE NOT indisvalid)`;
/** Only a concurrent build waits for those who have an old snapshot. */
export const OLD_SNAPSHOT = 'SELECT count(*) FROM pg_class';

/** The worker is killed at five points around `apply.upgrade`, and started again. */
import { setTimeout as delay } from 'node:timers/promises';
import type { WorkflowHandle } from '@temporalio/client';
import type { Client } from 'pg';
import type { ProofCase } from '../../scripts/proof.ts';
import { atGate, endWithoutDecision, startMigration, until } from '../../scripts/scenarios/driving.ts';
import { compareWithReality, onProduction, type Picture, takePicture } from '../../scripts/scenarios/reality.ts';
import { type Session, withSession } from '../../scripts/scenarios/session.ts';
import { isAlive } from '../../scripts/stack/process-identity.ts';
import { resetExample } from '../../scripts/stack/example.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import type { SealedPlan } from '../../src/contract/plan.ts';
import type { Outcome } from '../../src/contract/profile.ts';

export const sentence =
  'SIGKILL of the worker around the upgrade: no revision twice, nothing left, the end is what reality demands';

const RELEASE = 'v1.1.0';
const [FIRST, SECOND, THIRD] = ['0003_speakers', '0004_word_count', '0005_transcript_search'] as const;
const ALLOWED: readonly Outcome[] = ['succeeded', 'rolled-back', 'aborted'];

interface Point {
  readonly name: string;
  /** Keeps the upgrade from passing this point, so that it is reached for certain; held by a session of its own. */
  readonly hold?: string;
  /** Is the upgrade there? */
  readonly reached: (client: Client) => Promise<boolean>;
  /** The worker is frozen here and the hold lifted, so that Alembic alone goes on to this end. */
  readonly until?: (client: Client) => Promise<boolean>;
}

const versionIs =
  (revision: string) =>
  async (client: Client): Promise<boolean> => {
    const { rows } = await client.query<{ version_num: string }>('SELECT version_num FROM public.alembic_version');
    return rows.some(({ version_num }) => version_num === revision);
  };

const waitsForLock = async (client: Client): Promise<boolean> => {
  const { rows } = await client.query(
    `SELECT FROM pg_stat_activity WHERE usename = 'whisper_migrator' AND wait_event_type = 'Lock'`,
  );
  return rows.length > 0;
};

const buildsIndex = async (client: Client): Promise<boolean> => {
  const { rows } = await client.query('SELECT FROM pg_index WHERE NOT indisvalid');
  return rows.length > 0;
};

const POINTS: readonly Point[] = [
  { name: 'before the first revision', reached: async () => true },
  {
    name: 'inside the first revision',
    // Conflicts with the lock that the new foreign key takes on the old table.
    hold: 'LOCK TABLE public.recordings IN ROW EXCLUSIVE MODE',
    reached: waitsForLock,
  },
  {
    name: 'between revisions',
    // Lets the foreign key pass, not the new column.
    hold: 'LOCK TABLE public.transcripts IN ACCESS SHARE MODE',
    reached: versionIs(FIRST),
  },
  {
    name: 'inside the concurrent index build',
    // An old snapshot: only a concurrent build waits for those.
    hold: 'SELECT count(*) FROM pg_class',
    reached: buildsIndex,
  },
  {
    name: 'after the last commit, before the reply',
    hold: 'SELECT count(*) FROM pg_class',
    reached: buildsIndex,
    until: versionIs(THIRD),
  },
];

export const run = (say: (line: string) => void): Promise<readonly ProofCase[]> =>
  withSession({ name: 'proof-worker-kill', say }, async (session) => {
    const cases: ProofCase[] = [];
    for (const point of POINTS) {
      say(`killing ${point.name}`);
      cases.push(await killAt(session, point));
      say(`${point.name}: ${cases.at(-1)?.detail ?? ''}`);
    }
    return cases;
  });

async function killAt(session: Session, point: Point): Promise<ProofCase> {
  const { example } = session;
  if (!isAlive(session.worker.server)) await session.restartWorker();
  await resetExample(example);
  await recordVersionChanges(session);
  const before = await takePicture(example);
  const handle = await startMigration(session, { releaseTag: RELEASE });
  const { waiting } = await until(handle, atGate('approval'));
  const planDigest = waiting?.for === 'approval' ? waiting.planDigest : '';

  await holding(session, point.hold, async (lift) => {
    await handle.signal('approve', { by: 'erin@example.com', planDigest });
    await until(handle, ({ step }) => step?.id === 'apply.upgrade');
    await reach(session, point.reached);
    const { pid } = session.worker.server;
    if (point.until) {
      process.kill(pid, 'SIGSTOP');
      await lift();
      await reach(session, point.until);
    }
    process.kill(pid, 'SIGKILL');
  });
  await delay(500);
  await session.restartWorker();
  return judge(session, point, handle, before);
}

async function judge(session: Session, point: Point, handle: WorkflowHandle, before: Picture): Promise<ProofCase> {
  const { example } = session;
  const { outcome } = await endWithoutDecision(handle);
  const plan = await handle.query<SealedPlan | null>('plan');
  const findings = await compareWithReality(example, {
    outcome,
    before,
    loaded: before,
    targetRevision: plan?.plan.targetRevision ?? '',
  });
  const changes = await versionChanges(session);
  const ups = changes.filter((revision) => [FIRST, SECOND, THIRD].some((known) => known === revision));
  if (new Set(ups).size !== ups.length) findings.push('a revision was applied twice');
  if (!ALLOWED.includes(outcome)) findings.push(`ended ${outcome}`);
  return {
    name: point.name,
    passed: findings.length === 0,
    detail: `${outcome}; version rows went ${changes.join(' -> ')}${findings.length > 0 ? `; ${findings.join('; ')}` : ''}`,
  };
}

/** Opens a transaction that holds something, and ends it with `work` at the latest. */
async function holding(
  session: Session,
  hold: string | undefined,
  work: (lift: () => Promise<void>) => Promise<void>,
): Promise<void> {
  if (hold === undefined) {
    await work(async () => {});
    return;
  }
  await withClient(productionUrl(session), async (client) => {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await client.query(hold);
    await work(async () => {
      await client.query('ROLLBACK');
    });
    await client.query('ROLLBACK');
  });
}

async function reach(session: Session, reached: Point['reached']): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await onProduction(session.example, reached))) {
    if (Date.now() > deadline)
      throw new Error('the upgrade did not come to the point where the worker is to be killed');
    await delay(30);
  }
}

/** A witness of its own: every committed change of the version rows, in order. */
const recordVersionChanges = ({ example }: Session): Promise<unknown> =>
  onProduction(example, (client) =>
    client.query(`
      CREATE SCHEMA witness AUTHORIZATION whisper_owner;
      SET ROLE whisper_owner;
      CREATE TABLE witness.version_changes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, revision text NOT NULL);
      CREATE FUNCTION witness.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
      BEGIN INSERT INTO witness.version_changes (revision) VALUES (NEW.version_num); RETURN NEW; END $$;
      CREATE TRIGGER witness AFTER INSERT OR UPDATE ON public.alembic_version FOR EACH ROW EXECUTE FUNCTION witness.note();`),
  );

const versionChanges = ({ example }: Session): Promise<string[]> =>
  onProduction(example, async (client) => {
    const { rows } = await client.query<{ revision: string }>(
      'SELECT revision FROM witness.version_changes ORDER BY id',
    );
    return rows.map(({ revision }) => revision);
  });

function productionUrl({ example }: Session): string {
  const { primary } = example.stack.postgres;
  if (!primary) throw new Error('the stack runs without its primary');
  const url = new URL(primary.superuserUrl);
  url.pathname = `/${encodeURIComponent(example.databases.production)}`;
  return url.href;
}

/** A service with a repository, a production and a profile of its own, ready for `apply.upgrade`. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Client, Connection } from '@temporalio/client';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { createAccessActivities } from '../../src/activities/preconditions/access.ts';
import { upgradeProduction } from '../../src/activities/apply/apply.ts';
import { countArrivals } from '../../src/activities/recovery/arrivals.ts';
import type { ActivityDependencies } from '../../src/activities/dependencies.ts';
import { evaluateProduction } from '../../src/activities/recovery/recovery.ts';
import { withRunStore } from '../../src/activities/run-store.ts';
import { readGraph } from '../../src/alembic/read-graph.ts';
import type { ProductionState } from '../../src/contract/evidence/production.ts';
import type { Arrivals, Evaluation } from '../../src/contract/evidence/rollback.ts';
import type { UpgradeEvidence, UpgradeInput, UpgradeProgress } from '../../src/contract/evidence/upgrade.ts';
import type { AlembicProfile, GuardProfile, Profile } from '../../src/contract/profile.ts';
import type { ArchivedFootprint, DroppedObject } from '../../src/contract/evidence/rehearsal.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { createService as createSource, type Revision } from '../fixtures/alembic/service.ts';
import { createService, execute, type TestService } from '../postgres-service.ts';
import { useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { writeServiceProfile } from './service-profile.ts';

const run = promisify(execFile);
const never = (): AbortSignal => new AbortController().signal;

export interface GuardedService {
  readonly production: TestService;
  readonly input: UpgradeInput;
  /** Runs the step; `heard` is told every heartbeat. */
  upgrade(heard?: (progress: UpgradeProgress) => void, signal?: AbortSignal): Promise<UpgradeEvidence>;
  /** Looks at what the upgrade left, as `recovery.evaluate` does. */
  evaluate(): Promise<Evaluation>;
  /** Counts what came into these, as `recovery.arrivals` does. */
  countArrivals(dropped: readonly DroppedObject[]): Promise<Arrivals>;
  /** What Alembic wrote in the last run of the step, as it is kept. */
  archivedLog(): Promise<string>;
}

export interface GuardedServiceOptions {
  /** They follow the revision `0002`, at which production stands. */
  readonly revisions: readonly Revision[];
  readonly guard?: Partial<GuardProfile>;
  readonly maximumTransactionAge?: number;
  readonly alembic?: Partial<AlembicProfile>;
  /** Default: every lock a migration could want, on the tables of production. */
  readonly footprint?: Pick<ArchivedFootprint, 'locks' | 'locksBy'>;
}

export async function createGuardedService(options: GuardedServiceOptions): Promise<GuardedService> {
  const stack = useStack();
  const home = await temporaryDirectory('guarded');
  const [{ root }, production] = await Promise.all([
    createSource([{ id: '0002' }, ...options.revisions]),
    createService(stack.postgres.primary),
  ]);
  // The limits are to come from the guard, not from the role.
  await execute(production.superuserUrl, `ALTER ROLE ${production.roles.migrator} RESET lock_timeout`);
  const commit = await commitAll(root);
  const written = await writeServiceProfile(home, production);
  const { guard, databases, alembic } = written.profile;
  const profile: Profile = {
    ...written.profile,
    repository: { ...written.profile.repository, url: root },
    guard: { ...guard, lockTimeout: 500, tries: 5, patience: 60_000, ...options.guard },
    databases: {
      ...databases,
      production: {
        ...databases.production,
        maximumTransactionAge: options.maximumTransactionAge ?? 600_000,
      },
    },
    alembic: {
      ...alembic,
      python: stack.venv.python,
      config: 'alembic.ini',
      directory: '.',
      urlVariable: 'DATABASE_URL',
      urlScheme: 'postgresql+psycopg',
      environment: { TRANSACTION_PER_MIGRATION: 'yes' },
      ...options.alembic,
    },
  };
  const { prepare: _, ...repository } = profile.repository;
  const deps: ActivityDependencies = {
    profilesDirectory: home,
    stateDirectory: join(home, 'state'),
    client: new Client({ connection: Connection.lazy({ address: stack.temporal.address }) }),
    secrets: createSecretVault(),
  };
  const runId = crypto.randomUUID();
  const step = {
    run: {
      runId,
      workflowId: `migrate-${written.service}`,
      service: written.service,
      releaseTag: 'v2.0.0',
      changeTicket: 'CHG-1',
      requestedBy: 'dana@example.com',
      commit,
    },
    profile: { ...profile, repository },
  };
  const environment = (signal?: AbortSignal): MockActivityEnvironment => {
    const mock = new MockActivityEnvironment(
      { heartbeatTimeoutMs: 400, workflowExecution: { workflowId: step.run.workflowId, runId } },
      { logger: new DefaultLogger('ERROR') },
    );
    signal?.addEventListener('abort', () => mock.cancel(), { once: true });
    return mock;
  };
  const before: ProductionState = await environment().run(() => createAccessActivities(deps).inspectProduction(step));
  const graph = await readGraph({
    python: stack.venv.python,
    root,
    directory: root,
    config: 'alembic.ini',
    environment: {},
    signal: new AbortController().signal,
    redactor: deps.secrets.redactor,
  });
  const path = graph.revisions
    .filter(({ revision }) => revision !== '0002')
    .toSorted((a, b) => a.revision.localeCompare(b.revision));
  const [target = '0002'] = graph.heads;
  const footprint: ArchivedFootprint = {
    format: 'migration-runbook/footprint/1',
    statements: [],
    ...(options.footprint ?? { locksBy: 'statements', locks: ['public.users', 'public.notes'].map(everyLock) }),
  };
  const document = await withRunStore(deps.secrets, step, new AbortController().signal, (store) =>
    store.record('rehearsal/footprint.json', JSON.stringify(footprint)),
  );
  const input: UpgradeInput = {
    ...step,
    planRunId: runId,
    before,
    footprint: document,
    graph: {
      startRevisions: ['0002'],
      targetRevision: target,
      targetRevisions: [target],
      path,
      downgrade: { kind: 'impossible', why: 'not asked for here' },
      risks: [],
      unknown: [],
    },
  };
  return {
    production,
    input,
    upgrade: (heard, signal) => {
      const mock = environment(signal);
      mock.on('heartbeat', (details: UpgradeProgress) => heard?.(details));
      return mock.run(() => upgradeProduction(deps)(input));
    },
    evaluate: () => environment().run(() => evaluateProduction(deps)(input)),
    countArrivals: (dropped) => environment().run(() => countArrivals(deps)({ ...input, dropped })),
    archivedLog: () =>
      withRunStore(deps.secrets, step, never(), async ({ store, folder }) =>
        Buffer.from((await store.get(`${folder}/apply/alembic.log`, never())) ?? []).toString('utf8'),
      ),
  };
}

export const everyLock = (relation: string) => ({
  relation,
  mode: 'AccessExclusiveLock',
  milliseconds: 1,
  revision: null,
});

async function commitAll(root: string): Promise<string> {
  const git = async (...args: readonly string[]): Promise<string> => {
    const { stdout } = await run('git', [
      '-C',
      root,
      '-c',
      'user.name=Test',
      '-c',
      'user.email=test@example.com',
      ...args,
    ]);
    return stdout.trim();
  };
  await git('init', '--quiet', '--initial-branch=main');
  await git('add', '--all');
  await git('commit', '--quiet', '--message', 'Release');
  return git('rev-parse', 'HEAD');
}

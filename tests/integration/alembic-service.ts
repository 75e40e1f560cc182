import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { serviceEnvironment } from '../../src/alembic/service-url.ts';
import type { StatementEvent } from '../../src/alembic/statements.ts';
import type { UpgradeOptions } from '../../src/alembic/upgrade.ts';
import { parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { createService, type Revision } from '../fixtures/alembic/service.ts';
import { createDatabase, useStack } from '../stack.ts';

export const drivers = ['postgresql+psycopg2', 'postgresql+psycopg', 'postgresql+asyncpg'] as const;
export type Driver = (typeof drivers)[number];
export type Statement = Extract<StatementEvent, { event: 'statement' }>;

export const eachItsOwn = { TRANSACTION_PER_MIGRATION: 'yes' };

/** What is in force while a statement runs, written down by the statement. */
export const recording = 'op.execute("CREATE TABLE seen (label text, lock text, statement text)")';
export const recorded = (label: string): string =>
  `op.execute("INSERT INTO seen SELECT '${label}', current_setting('lock_timeout'), current_setting('statement_timeout')")`;

/** How a command ends that did all it was asked for, with nothing to be noted. */
export const succeeded = {
  result: { kind: 'exited', code: 0, stderrTail: '' },
  reporter: { kind: 'loaded' },
  notes: [],
};

/** A service with a database of its own, whose statements are kept as they are told. */
export async function reportedService(revisions: readonly Revision[], driver: Driver = 'postgresql+psycopg') {
  const stack = useStack();
  const [{ root }, { url, name }] = await Promise.all([
    createService(revisions),
    createDatabase(stack.postgres.primary),
  ]);
  if (driver === 'postgresql+asyncpg') {
    await copyFile(new URL('../fixtures/alembic/async_env.py', import.meta.url), join(root, 'migrations', 'env.py'));
  }
  const events: StatementEvent[] = [];
  const environment = serviceEnvironment(parseConnectionUrl(url), { urlVariable: 'DATABASE_URL', urlScheme: driver });
  const options: Omit<UpgradeOptions, 'target'> = {
    python: stack.venv.python,
    directory: root,
    config: 'alembic.ini',
    environment,
    signal: new AbortController().signal,
    redactor: createRedactor([url]),
    onStatement: (event) => events.push(event),
  };
  return {
    root,
    url,
    name,
    options,
    environment,
    events,
    statements: () => events.filter((event): event is Statement => event.event === 'statement'),
    of: (revision: string) =>
      events.filter((event): event is Statement => event.event === 'statement' && event.revision === revision),
    seen: () =>
      withClient(url, async (client) => {
        const { rows } = await client.query<{ label: string; lock: string; statement: string }>('SELECT * FROM seen');
        return Object.fromEntries(rows.map(({ label, lock, statement }) => [label, [lock, statement]]));
      }),
  };
}

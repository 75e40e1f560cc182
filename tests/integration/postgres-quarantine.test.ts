import { Client } from 'pg';
import { describe, expect, it } from 'vitest';
import { STEP_ERRORS, StepError } from '../../src/contract/errors.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { createDatabaseLike } from '../../src/postgres/catalog/database-properties.ts';
import { listMarkedDatabases, readDatabaseSize } from '../../src/postgres/restore/database-mark.ts';
import { dropKeptAside, listKeptAside } from '../../src/postgres/swap/quarantine.ts';
import { freshDatabaseName } from '../../src/postgres/restore/restore.ts';
import { swapDatabases } from '../../src/postgres/swap/swap.ts';
import { createService, query, type TestService, withClient } from '../postgres-service.ts';
import { databaseUrl, randomName, useStack } from '../stack.ts';

const { primary: server, replica } = useStack().postgres;
const session = { runId: 'quarantine', step: 'test', signal: new AbortController().signal, database: 'postgres' };

/** A service whose production has been replaced by a restore. */
async function replaced(): Promise<{ service: TestService; keptAside: string }> {
  const service = await createService(server);
  const runId = randomName('run');
  const fresh = freshDatabaseName(service.database, runId);
  await withClient(server.superuserUrl, (client) => createDatabaseLike(client, service.database, fresh));
  const { keptAside } = await swapDatabases({
    url: service.administratorUrl,
    maintenanceDatabase: 'postgres',
    fresh,
    runId,
    service: 'whisper-transcriber',
    workflowId: 'migrate-whisper-transcriber',
    quarantine: 60_000,
    step: 'recovery.restore/swap',
    standbys: [{ name: replica.name, sessions: 'none' }],
    signal: session.signal,
    progress: () => undefined,
  });
  return { service, keptAside };
}

const drop = (service: TestService, name: string, production = [service.database]) =>
  withConnection(service.administratorUrl, session, (client) => dropKeptAside(client, { name, production }));

async function refused(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(StepError);
  expect((error as StepError).type).toBe(STEP_ERRORS.refused);
  return (error as StepError).message;
}

const exists = async (name: string): Promise<boolean> =>
  (await query(server.superuserUrl, 'SELECT FROM pg_database WHERE datname = $1', [name])).length === 1;

describe('a database kept aside', () => {
  it('is listed with its owner and expiry, and dropped when named exactly', async () => {
    const { service, keptAside } = await replaced();
    const listed = await withConnection(service.administratorUrl, session, listKeptAside);
    const found = listed.find(({ name }) => name === keptAside);
    expect(found).toMatchObject({
      production: service.database,
      closed: true,
      mark: { service: 'whisper-transcriber', workflowId: 'migrate-whisper-transcriber' },
    });
    expect(found!.sizeBytes).toBeGreaterThan(1_000_000);
    expect(await drop(service, keptAside)).toMatchObject({ name: keptAside });
    expect(await exists(keptAside)).toBe(false);
  });

  it('that somebody drops while they are listed does not keep the others from being listed', async () => {
    const { service, keptAside } = await replaced();
    const other = await replaced();
    const listed = await withConnection(server.superuserUrl, session, async (client) => {
      // A list takes a moment: this one sees the catalog as it was before, the server's size of a database is of now.
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
      await client.query('SELECT FROM pg_database');
      await drop(service, keptAside);
      return listMarkedDatabases(client);
    });
    const names = listed.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining([keptAside, other.keptAside]));
    const gone = listed.find(({ name }) => name === keptAside)!;
    const size = await withConnection(server.superuserUrl, session, (client) => readDatabaseSize(client, gone.oid));
    expect(size).toBeNull();
  });

  it('is the only kind that is dropped: production and unmarked databases are not', async () => {
    const { service, keptAside } = await replaced();
    expect(await refused(drop(service, service.database))).toContain('that a run has put aside');
    expect(await refused(drop(service, 'postgres'))).toContain('that a run has put aside');
    expect(await refused(drop(service, keptAside.slice(0, -1)))).toContain('that a run has put aside');
    await query(server.superuserUrl, `COMMENT ON DATABASE "${keptAside}" IS 'mine now'`);
    expect(await refused(drop(service, keptAside))).toContain('that a run has put aside');
  });

  it('is not dropped once somebody has taken it into use again', async () => {
    const { service, keptAside } = await replaced();
    await query(server.superuserUrl, `ALTER DATABASE "${keptAside}" ALLOW_CONNECTIONS true`);
    const curious = new Client({ connectionString: databaseUrl(server, keptAside) });
    curious.on('error', () => undefined);
    await curious.connect();
    const told = await refused(drop(service, keptAside));
    expect(told).toContain('open to connections');
    expect(told).toContain('1 session(s) are connected');
    await curious.end();
    await query(server.superuserUrl, `ALTER DATABASE "${keptAside}" ALLOW_CONNECTIONS false`);
    expect(await drop(service, keptAside)).toMatchObject({ name: keptAside });
  });

  it('is not dropped after it was given production’s name back by hand, whatever its comment says', async () => {
    const { service, keptAside } = await replaced();
    await query(server.superuserUrl, `ALTER DATABASE ${service.database} RENAME TO "${service.database}_spoilt"`);
    await query(server.superuserUrl, `ALTER DATABASE "${keptAside}" RENAME TO ${service.database}`);
    const told = await refused(drop(service, service.database));
    expect(told).toContain('it is the production database of the profile');
    expect(told).toContain(`it was put aside as "${keptAside}" and has been renamed since`);
    expect(told).toContain('this may be the only copy');
    expect(await exists(service.database)).toBe(true);
  });
});

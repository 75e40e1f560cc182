import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { databaseMark } from '../../src/postgres/restore/database-mark.ts';
import type { KeptAside } from '../../src/postgres/swap/quarantine.ts';
import { createService, execute, query, type TestService, withClient } from '../postgres-service.ts';
import { randomName, useStack } from '../stack.ts';
import { type CliWorld, createWorld } from './cli-world.ts';
import { writeServiceProfile } from './service-profile.ts';

const stack = useStack();
const { primary } = stack.postgres;
let cli: CliWorld;
let production: TestService;
let service: string;

beforeAll(async () => {
  cli = await createWorld();
  await cli.runbook('setup');
  production = await createService(primary);
  ({ service } = await writeServiceProfile(cli.profiles, production));
});

const made: string[] = [];
afterAll(async () => {
  for (const name of made) await execute(primary.superuserUrl, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
});

const future = new Date(Date.now() + 14 * 24 * 3_600_000).toISOString();

/** As a swap leaves it: closed, owned by the owner, with its mark. */
async function putAside(change: { workflowId?: string; runId?: string; service?: string } = {}): Promise<string> {
  const name = randomName('aside');
  made.push(name);
  const mark = databaseMark({
    kind: 'kept-aside',
    runId: randomUUID(),
    workflowId: `migrate-${service}`,
    service,
    expiresAt: future,
    note: '',
    facts: { production: production.database, keptAside: name },
    ...change,
  });
  await withClient(primary.superuserUrl, async (client) => {
    await client.query(`CREATE DATABASE ${name} TEMPLATE template0 OWNER ${production.roles.owner}`);
    await client.query(`COMMENT ON DATABASE ${name} IS ${client.escapeLiteral(mark)}`);
    await client.query(`ALTER DATABASE ${name} WITH ALLOW_CONNECTIONS false`);
  });
  return name;
}

const exists = async (name: string): Promise<boolean> =>
  (await query(primary.superuserUrl, 'SELECT FROM pg_database WHERE datname = $1', [name])).length > 0;

const quarantine = (...words: string[]) => cli.runbook('quarantine', ...words, '--profiles', cli.profiles);

describe('runbook quarantine', () => {
  test('lists what runs of the service have put aside, and drops one by its name', async () => {
    expect(await quarantine('list', service)).toEqual({
      code: 0,
      stdout: `no database of ${service} is kept aside\n`,
      stderr: '',
    });
    const name = await putAside();
    const others = await putAside({ service: 'another-service' });
    const { code, stdout } = await quarantine('list', service);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      new RegExp(
        `^${name}\\n    was database ${production.database}, .*kept until 20.* UTC \\(in 1[34] d.*\\)\\n    put aside by run .* \\(migrate-${service}\\)\\n$`,
      ),
    );
    const json = await quarantine('list', service, '--json');
    expect((JSON.parse(json.stdout) as KeptAside[]).map((database) => database.name)).toEqual([name]);

    expect(await quarantine('drop', others, '--service', service, '--yes')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`no database "${others}" of ${service} is kept aside`),
    });
    expect(await quarantine('drop', name, '--service', service, '--yes')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(`^dropped ${name}`),
    });
    expect(await exists(name)).toBe(false);
    expect(await exists(others)).toBe(true);
  });

  test('asks first, and drops nothing where there is nobody to ask', async () => {
    const name = await putAside();
    const words = ['quarantine', 'drop', name, '--service', service, '--profiles', cli.profiles];
    expect(await cli.begin(...words).ended).toMatchObject({
      code: 2,
      stderr: 'runbook: give --yes: there is no terminal to ask at\n',
    });
    expect(await exists(name)).toBe(true);
  });

  test('drops nothing while the run that put it aside is running', async () => {
    const workflowId = `migrate-${randomName('running')}`;
    const handle = await cli.client.workflow.start('databaseMigration', { workflowId, taskQueue: 'nobody', args: [] });
    const name = await putAside({ workflowId, runId: handle.firstExecutionRunId });
    const drop = () => quarantine('drop', name, '--service', service, '--yes');
    expect(await drop()).toMatchObject({ code: 1, stderr: expect.stringContaining('is still running') });
    expect(await exists(name)).toBe(true);
    await handle.terminate();
    expect(await drop()).toMatchObject({ code: 0 });
  });

  test('drops nothing that is open to connections, and never production itself', async () => {
    const name = await putAside();
    await execute(primary.superuserUrl, `ALTER DATABASE ${name} WITH ALLOW_CONNECTIONS true`);
    expect(await quarantine('drop', name, '--service', service, '--yes')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('it is open to connections'),
    });
    expect(await quarantine('drop', production.database, '--service', service, '--yes')).toMatchObject({ code: 1 });
    expect(await exists(production.database)).toBe(true);
  });
});

import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import {
  DeleteObjectCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { Connection } from '@temporalio/client';
import { afterEach, describe, expect, test } from 'vitest';
import { programs, root, stackRoot } from '../../scripts/stack/layout.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { identify, isAlive } from '../../scripts/stack/process-identity.ts';
import type { ProcessIdentity } from '../../scripts/stack/process-identity.ts';
import { attachStack, startStack, stopStack } from '../../scripts/stack/stack.ts';
import { readState } from '../../scripts/stack/state-file.ts';
import { createDatabase, databaseUrl, randomName, useStack } from '../stack.ts';

const run = promisify(execFile);

describe('the running stack', () => {
  const stack = useStack();
  const { primary, replica, staging, scratch } = stack.postgres;

  test('has three different PostgreSQL clusters, and a replica of the first', async () => {
    const identifiers = await Promise.all(
      [primary, staging, scratch, replica].map((server) => systemIdentifier(server.superuserUrl)),
    );
    expect(new Set(identifiers).size).toBe(3);
    expect(identifiers[3]).toBe(identifiers[0]);
  });

  test('streams what the primary commits to the replica, under its name and slot', async () => {
    const database = await createDatabase(primary);
    await withClient(database.url, (client) => client.query('CREATE TABLE note AS SELECT 42 AS answer'));
    const onReplica = (query: string) =>
      withClient(databaseUrl(replica, database.name), async (client) => (await client.query(query)).rows as unknown);
    await expect.poll(() => onReplica('SELECT answer FROM note').catch(() => undefined)).toEqual([{ answer: 42 }]);
    expect(await onReplica('SELECT pg_is_in_recovery() AS recovering')).toEqual([{ recovering: true }]);
    const { rows } = await withClient(primary.superuserUrl, (client) =>
      client.query(
        'SELECT application_name, state, slot_name, active FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid',
      ),
    );
    expect(rows).toEqual([{ application_name: 'replica1', state: 'streaming', slot_name: 'replica1', active: true }]);
  });

  test('asks for passwords and brings the client programs of its own version', async () => {
    const wrong = new URL(primary.superuserUrl);
    wrong.password = 'wrong';
    await expect(withClient(wrong.href, (client) => client.query('SELECT'))).rejects.toThrow(
      'password authentication failed',
    );
    const { stdout } = await run(join(primary.binDirectory, 'pg_dump'), ['--version']);
    const { rows } = await withClient(primary.superuserUrl, (client) =>
      client.query<{ version: string }>(`SELECT current_setting('server_version') AS version`),
    );
    expect(stdout.trim()).toBe(`pg_dump (PostgreSQL) ${rows[0]?.version}`);
  });

  test('keeps objects in the bucket for those who have the key', async () => {
    const { endpoint, region, bucket, accessKeyId, secretAccessKey } = stack.s3;
    const key = `${randomName('stack-test')}/note.txt`;
    const client = new S3Client({
      endpoint,
      region,
      forcePathStyle: true,
      credentials: { accessKeyId, secretAccessKey },
    });
    await client.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: 'kept' }));
    const object = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }));
    expect(await object.Body?.transformToString()).toBe('kept');
    await client.send(new DeleteObjectCommand({ Bucket: bucket, Key: key }));
    const stranger = new S3Client({
      endpoint,
      region,
      forcePathStyle: true,
      credentials: { accessKeyId, secretAccessKey: 'wrong' },
    });
    await expect(stranger.send(new ListObjectsV2Command({ Bucket: bucket }))).rejects.toMatchObject({
      $metadata: { httpStatusCode: 403 },
    });
  });

  test('has Temporal serving, with the search attributes of migrations and its UI', async () => {
    const connection = await Connection.connect({ address: stack.temporal.address });
    try {
      const health = await connection.healthService.check({
        service: 'temporal.api.workflowservice.v1.WorkflowService',
      });
      expect(health.status).toBe(1);
      const attributes = await connection.operatorService.listSearchAttributes({ namespace: stack.temporal.namespace });
      expect(Object.keys(attributes.customAttributes)).toEqual(
        expect.arrayContaining([
          'MigrationService',
          'MigrationRelease',
          'MigrationTicket',
          'MigrationStage',
          'MigrationOutcome',
        ]),
      );
    } finally {
      await connection.close();
    }
    expect((await fetch(stack.temporal.uiUrl)).status).toBe(200);
  });

  test('has Redis behind a password', async () => {
    const url = new URL(stack.redis.url);
    const ping = async (environment: Readonly<Record<string, string>>): Promise<string> =>
      (await run(programs.redisCli, ['-p', url.port, 'ping'], { env: { ...environment } })).stdout.trim();
    expect(await ping({ REDISCLI_AUTH: url.password })).toBe('PONG');
    expect(await ping({})).toMatch(/^NOAUTH/);
  });

  test('shows no password in process arguments or to other users of the machine', async () => {
    const state = await readState(stack.directory);
    const secrets = [
      stack.s3.secretAccessKey,
      new URL(stack.redis.url).password,
      new URL(primary.superuserUrl).password,
      new URL(staging.superuserUrl).password,
    ];
    const commandLines = await Promise.all(
      (state?.servers ?? []).map(
        async ({ pid }) => (await run('ps', ['-ww', '-o', 'args=', '-p', String(pid)])).stdout,
      ),
    );
    expect(commandLines.length).toBeGreaterThanOrEqual(7);
    for (const secret of secrets) expect(commandLines.join('\n')).not.toContain(secret);
    expect((await stat(join(stack.directory, 'stack.json'))).mode & 0o077).toBe(0);
  });
});

describe('a stack of its own', () => {
  const made: string[] = [];
  const children: ChildProcess[] = [];

  function ownDirectory(suffix = ''): string {
    const directory = join(stackRoot, 'test', `${randomName('own')}${suffix}`);
    made.push(directory);
    return directory;
  }

  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    for (const directory of made.splice(0)) {
      await stopStack(directory);
      await rm(directory, { recursive: true, force: true });
    }
  });

  /** Another process that starts a stack, says so and then waits for ever. */
  async function startElsewhere(options: {
    readonly directory: string;
    readonly lifetime: string;
    readonly parts?: readonly string[];
    readonly supervised?: 'by-shell';
  }): Promise<ChildProcess> {
    const { supervised, ...stackOptions } = options;
    const program = `const { startStack } = await import(${JSON.stringify(join(root, 'scripts/stack/stack.ts'))});
      await startStack(${JSON.stringify(stackOptions)});
      console.log('up');
      setInterval(() => {}, 60_000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...(supervised === undefined ? {} : { STACK_SUPERVISION: 'shell' }) },
    });
    children.push(child);
    await new Promise<void>((resolve, reject) => {
      child.stdout?.on('data', () => resolve());
      child.once('exit', (code) => reject(new Error(`the starting process ended with ${code}`)));
    });
    return child;
  }

  /** Every process of the stack: the servers recorded, and the children PostgreSQL has forked. */
  async function processesOf(directory: string): Promise<readonly ProcessIdentity[]> {
    const servers = (await readState(directory))?.servers ?? [];
    const { stdout } = await run('ps', ['-A', '-o', 'pid=,ppid=']);
    const parents = stdout
      .trim()
      .split('\n')
      .map((line) => line.trim().split(/\s+/).map(Number));
    const found = new Set(servers.map(({ pid }) => pid));
    for (let before = -1; before !== found.size; ) {
      before = found.size;
      for (const [pid, parent] of parents)
        if (pid !== undefined && parent !== undefined && found.has(parent)) found.add(pid);
    }
    return [...found].map(identify).filter((identity) => identity !== undefined);
  }

  test('leaves no process when stopped', async () => {
    const directory = ownDirectory();
    const stack = await startStack({ directory });
    const processes = await processesOf(directory);
    expect(processes.length).toBeGreaterThan(stack.servers.length + 4);
    await stack.stop();
    expect(processes.filter(isAlive)).toEqual([]);
    expect(await attachStack(directory)).toBeUndefined();
  });

  test.for([{ supervised: undefined }, { supervised: 'by-shell' }] as const)(
    'leaves no process when its parent is killed (supervised: $supervised)',
    async ({ supervised }) => {
      const directory = ownDirectory();
      const parent = await startElsewhere({
        directory,
        lifetime: 'with-parent',
        ...(supervised === undefined ? {} : { supervised }),
      });
      const processes = await processesOf(directory);
      expect(processes.length).toBeGreaterThan(7 + 4);
      parent.kill('SIGKILL');
      await expect.poll(() => processes.filter(isAlive), { timeout: 20_000 }).toEqual([]);
      // What a crash leaves can be started again.
      const again = await startStack({ directory, parts: ['replica', 'staging'] });
      expect(await systemIdentifier(again.postgres.primary?.superuserUrl ?? '')).toMatch(/^\d+$/);
      await again.stop();
    },
  );

  test('outlives its parent when detached, until somebody stops it', async () => {
    const directory = ownDirectory();
    const parent = await startElsewhere({ directory, lifetime: 'detached', parts: ['primary', 'temporal', 'redis'] });
    const processes = await processesOf(directory);
    // What PostgreSQL forks may end by itself: a session, autovacuum.
    const servers = (await readState(directory))?.servers ?? [];
    expect(servers).toHaveLength(3);
    parent.kill('SIGKILL');
    await new Promise((resolve) => parent.once('exit', resolve));
    await delay(500);
    expect(servers.filter(isAlive)).toEqual(servers);
    const stack = await attachStack(directory);
    expect(await systemIdentifier(stack?.postgres.primary?.superuserUrl ?? '')).toMatch(/^\d+$/);
    await expect(startStack({ directory, parts: ['redis'] })).rejects.toThrow('a stack is running');
    expect(await stopStack(directory)).toBe(3);
    expect(processes.filter(isAlive)).toEqual([]);
  });

  test('stops only what it started, even when a pid belongs to another process by now', async () => {
    const directory = ownDirectory();
    const stack = await startStack({ directory, parts: ['redis'], lifetime: 'detached' });
    const innocent = spawn('sleep', ['60'], { stdio: 'ignore' });
    children.push(innocent);
    const file = join(directory, 'stack.json');
    const state = await readFile(file, 'utf8');
    await stack.stop();
    await writeFile(file, state.replace(`"pid": ${stack.servers[0]?.pid}`, `"pid": ${innocent.pid}`));
    expect(await stopStack(directory)).toBe(0);
    expect(identify(innocent.pid ?? 0)).toBeDefined();
  });

  test('keeps its data where asked to, also in a folder with a space in its name', async () => {
    const directory = ownDirectory(' with space');
    const first = await startStack({ directory, parts: ['scratch', 's3', 'redis'] });
    await withClient(first.postgres.scratch?.superuserUrl ?? '', (client) => client.query('CREATE TABLE kept ()'));
    await first.stop();
    const second = await startStack({ directory, parts: ['scratch'] });
    expect(await tableExists(second.postgres.scratch?.superuserUrl ?? '')).toBe(true);
    await second.stop();
    const third = await startStack({ directory, parts: ['scratch'], data: 'fresh' });
    expect(await tableExists(third.postgres.scratch?.superuserUrl ?? '')).toBe(false);
    await third.stop();
  });
});

async function systemIdentifier(url: string): Promise<string | undefined> {
  const { rows } = await withClient(url, (client) =>
    client.query<{ id: string }>('SELECT system_identifier::text AS id FROM pg_control_system()'),
  );
  return rows[0]?.id;
}

async function tableExists(url: string): Promise<boolean> {
  const { rows } = await withClient(url, (client) =>
    client.query<{ found: boolean }>(`SELECT to_regclass('kept') IS NOT NULL AS found`),
  );
  return rows[0]?.found === true;
}

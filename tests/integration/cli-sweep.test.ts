import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CreateMultipartUploadCommand, S3Client } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SweepResult } from '../../src/commands/service-sweep.ts';
import { holdMigrationLock } from '../../src/postgres/advisory-lock.ts';
import { type DatabaseMark, databaseMark } from '../../src/postgres/restore/database-mark.ts';
import { createService, execute, query, type TestService, withClient } from '../postgres-service.ts';
import { databaseUrl, randomName, useStack } from '../stack.ts';
import { never, openTestStore } from './archive-source.ts';
import { type CliWorld, createWorld } from './cli-world.ts';
import { writeServiceProfile } from './service-profile.ts';

const stack = useStack();
const { scratch } = stack.postgres;
let cli: CliWorld;
let production: TestService;
let service: string;
let folder: string;
const store = openTestStore();

beforeAll(async () => {
  cli = await createWorld();
  await cli.runbook('setup');
  production = await createService(stack.postgres.primary);
  ({ service, folder } = await writeServiceProfile(cli.profiles, production));
});

const made: { readonly url: string; readonly name: string }[] = [];
afterAll(async () => {
  for (const { url, name } of made) {
    await withClient(url, (client) =>
      client.query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(name)} WITH (FORCE)`),
    );
  }
});

const past = new Date(Date.now() - 60_000).toISOString();
const future = new Date(Date.now() + 3_600_000).toISOString();

/** A run of this service that is running (nobody works on it), or is over. */
async function ownerRun(state: 'running' | 'ended', workflowId = `drill-${randomName(service)}`): Promise<Owner> {
  const handle = await cli.client.workflow.start('restoreDrill', { workflowId, taskQueue: 'nobody', args: [] });
  if (state === 'ended') await handle.terminate();
  return { workflowId, runId: handle.firstExecutionRunId };
}

interface Owner {
  readonly workflowId: string;
  readonly runId: string;
}

const forgotten = (): Owner => ({ workflowId: `drill-${service}`, runId: randomUUID() });

/** @param mark undefined = without one */
async function createMarked(
  server: 'production' | 'scratch',
  mark: Pick<DatabaseMark, 'kind' | 'expiresAt' | 'runId' | 'workflowId' | 'facts'> | undefined,
  named = randomName('leftover'),
  markedService = service,
): Promise<string> {
  const url = server === 'scratch' ? scratch.superuserUrl : production.administratorUrl;
  const maintenance = server === 'scratch' ? url : databaseUrl(stack.postgres.primary, 'postgres', roleOf(url));
  made.push({ url: stack.postgres[server === 'scratch' ? 'scratch' : 'primary'].superuserUrl, name: named });
  await withClient(maintenance, async (client) => {
    await client.query(`CREATE DATABASE ${client.escapeIdentifier(named)} TEMPLATE template0`);
    if (mark === undefined) return;
    const text = databaseMark({ ...mark, service: markedService, note: '' });
    await client.query(`COMMENT ON DATABASE ${client.escapeIdentifier(named)} IS ${client.escapeLiteral(text)}`);
  });
  return named;
}

const roleOf = (url: string): { name: string; password: string } => {
  const { username, password } = new URL(url);
  return { name: decodeURIComponent(username), password: decodeURIComponent(password) };
};

const exists = async (server: 'production' | 'scratch', name: string): Promise<boolean> => {
  const { superuserUrl } = stack.postgres[server === 'scratch' ? 'scratch' : 'primary'];
  return (await query(superuserUrl, 'SELECT FROM pg_database WHERE datname = $1', [name])).length > 0;
};

/** The command's own JSON, one leftover by its name. */
async function sweep(...words: readonly string[]): Promise<SweepResult & { readonly code: number | null }> {
  const { code, stdout, stderr } = await cli.runbook('sweep', service, '--profiles', cli.profiles, '--json', ...words);
  if (stdout === '') throw new Error(stderr);
  return { ...(JSON.parse(stdout) as SweepResult), code };
}

const verdictOn = ({ leftovers }: SweepResult, name: string): unknown =>
  leftovers.find((leftover) => ('name' in leftover ? leftover.name : leftover.key) === name)?.verdict;

describe('runbook sweep', () => {
  test('says that nothing is left over', async () => {
    expect(await cli.runbook('sweep', service, '--profiles', cli.profiles)).toEqual({
      code: 0,
      stdout: 'nothing is left over\n',
      stderr: '',
    });
  });

  test('lists databases with owner, age and expiry, and removes exactly those that are nobody’s any more', async () => {
    const ended = await ownerRun('ended');
    const running = await ownerRun('running');
    const expired = await createMarked('scratch', { kind: 'drill', expiresAt: past, ...ended });
    const fresh = await createMarked('production', { kind: 'restore', expiresAt: past, ...ended });
    const kept = {
      early: await createMarked('scratch', { kind: 'scratch', expiresAt: future, ...ended }),
      running: await createMarked('scratch', { kind: 'drill', expiresAt: past, ...running }),
      forgotten: await createMarked('scratch', { kind: 'drill', expiresAt: past, ...forgotten() }),
    };
    const unmarked = await createMarked('scratch', undefined, `${service}_drill_${ended.runId.slice(-12)}`);
    const elsewhere = await createMarked(
      'scratch',
      { kind: 'drill', expiresAt: past, ...ended },
      randomName('leftover'),
      'another-service',
    );

    const text = await cli.runbook('sweep', service, '--profiles', cli.profiles);
    expect(text).toMatchObject({ code: 0, stderr: '' });
    expect(text.stdout).toMatch(
      new RegExp(
        `^drill database on the scratch server: ${expired}\\n    run ${ended.runId} \\(${ended.workflowId}, ended\\), step drill\\.restore, .* old, .* MB, expired 20.* UTC\\n    may be removed: give --remove$`,
        'm',
      ),
    );
    expect(text.stdout).toContain(`fresh database of a restore on the production server: ${fresh}\n`);
    expect(text.stdout).not.toContain(unmarked);
    expect(text.stdout).not.toContain(elsewhere);
    expect(await exists('scratch', expired)).toBe(true);

    const result = await sweep('--remove');
    expect(result.code).toBe(0);
    expect(verdictOn(result, expired)).toEqual({ kind: 'removed' });
    expect(verdictOn(result, fresh)).toEqual({ kind: 'removed' });
    expect(verdictOn(result, kept.early)).toMatchObject({ kind: 'kept', why: expect.stringContaining('stay until') });
    expect(verdictOn(result, kept.running)).toMatchObject({ kind: 'kept', why: expect.stringContaining('running') });
    expect(verdictOn(result, kept.forgotten)).toMatchObject({
      kind: 'kept',
      why: expect.stringContaining('does not know its run'),
    });
    expect(await exists('scratch', expired)).toBe(false);
    expect(await exists('production', fresh)).toBe(false);
    for (const name of [...Object.values(kept), unmarked, elsewhere]) expect(await exists('scratch', name)).toBe(true);
    expect(await exists('production', production.database)).toBe(true);

    expect(verdictOn(await sweep('--remove', '--forgotten'), kept.forgotten)).toEqual({ kind: 'removed' });
    expect(await exists('scratch', kept.forgotten)).toBe(false);
  });

  test('drops what a rehearsal has left: copies, what it swapped, and then the logins that had rights in them', async () => {
    const ended = await ownerRun('ended');
    const mark = { kind: 'scratch', expiresAt: past, ...ended } as const;
    const copy = await createMarked('scratch', mark);
    const swapped = await createMarked('scratch', { ...mark, expiresAt: new Date(Date.now() - 1_000).toISOString() });
    const aside = randomName('aside');
    const facts = { production: swapped, keptAside: aside };
    await createMarked('scratch', { ...mark, kind: 'kept-aside', facts }, aside);
    await execute(scratch.superuserUrl, `ALTER DATABASE ${aside} WITH ALLOW_CONNECTIONS false`);
    const role = randomName('login');
    const text = databaseMark({ ...mark, service, note: '' });
    const theirs = databaseMark({ ...mark, service: 'another-service', note: '' });
    await execute(
      scratch.superuserUrl,
      `CREATE ROLE ${role} LOGIN PASSWORD 'word'`,
      `COMMENT ON ROLE ${role} IS '${text}'`,
      `GRANT CONNECT ON DATABASE ${copy} TO ${role}`,
      `CREATE ROLE ${role}_theirs`,
      `COMMENT ON ROLE ${role}_theirs IS '${theirs}'`,
    );
    try {
      expect((await cli.runbook('sweep', service, '--profiles', cli.profiles)).stdout).toContain(
        `login of a rehearsal on the scratch server: ${role}\n`,
      );
      const result = await withClient(databaseUrl(scratch, 'postgres', { name: role, password: 'word' }), () =>
        sweep('--remove'),
      );
      for (const name of [copy, swapped, aside, role]) expect(verdictOn(result, name)).toEqual({ kind: 'removed' });
      expect(
        await query(scratch.superuserUrl, 'SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1)', [role]),
      ).toEqual([{ rolname: `${role}_theirs` }]);
    } finally {
      await execute(scratch.superuserUrl, `DROP ROLE ${role}_theirs`);
    }
  });

  test('leaves production alone while somebody holds its migration lock', async () => {
    const ended = await ownerRun('ended');
    const fresh = await createMarked('production', { kind: 'restore', expiresAt: past, ...ended });
    const lock = await holdMigrationLock(production.administratorUrl, {
      database: production.database,
      maintenanceDatabase: 'postgres',
      runId: randomUUID(),
      step: 'apply.upgrade',
      signal: never(),
    });
    try {
      const result = await sweep('--remove');
      expect(verdictOn(result, fresh)).toMatchObject({ kind: 'not-removed' });
      expect(result.code).toBe(1);
      expect(await exists('production', fresh)).toBe(true);
    } finally {
      await lock.release();
    }
    expect(verdictOn(await sweep('--remove'), fresh)).toEqual({ kind: 'removed' });
  });

  test('drops what was production only while it is closed, unused and replaced', async () => {
    const ended = await ownerRun('ended');
    const name = randomName('aside');
    const facts = { production: production.database, keptAside: name };
    await createMarked('production', { kind: 'kept-aside', expiresAt: past, ...ended, facts }, name);
    expect(verdictOn(await sweep('--remove'), name)).toMatchObject({
      kind: 'not-removed',
      why: expect.stringContaining('it is open to connections'),
    });
    expect(await exists('production', name)).toBe(true);
    await execute(stack.postgres.primary.superuserUrl, `ALTER DATABASE ${name} WITH ALLOW_CONNECTIONS false`);
    expect(verdictOn(await sweep('--remove'), name)).toEqual({ kind: 'removed' });
    expect(await exists('production', name)).toBe(false);
  });

  test('looks at a scratch server that is a physical copy of production, and once at one that is both', async () => {
    const ended = await ownerRun('ended');
    const name = await createMarked('production', { kind: 'restore', expiresAt: future, ...ended });
    const { primary, replica } = stack.postgres;
    const places = async (scratchUrl: string): Promise<string[]> => {
      const other = await writeServiceProfile(cli.profiles, production);
      await writeFile(join(cli.profiles, `${other.service}-scratch`), scratchUrl);
      const mark = databaseMark({ kind: 'restore', ...ended, service: other.service, expiresAt: future, note: '' });
      await execute(primary.superuserUrl, `COMMENT ON DATABASE ${name} IS '${mark}'`);
      const { stdout } = await cli.runbook('sweep', other.service, '--profiles', cli.profiles, '--json');
      const { leftovers } = JSON.parse(stdout) as SweepResult;
      return leftovers.map((leftover) => (leftover.kind === 'database' ? leftover.server : leftover.kind));
    };
    expect(await places(primary.superuserUrl)).toEqual(['production']);
    await expect.poll(() => places(replica.superuserUrl), { timeout: 20_000 }).toEqual(['production', 'scratch']);
  });

  test('finds dumps without manifest and interrupted uploads, and leaves whole backups alone', async () => {
    const run = await ownerRun('ended', `migrate-${service}`);
    const put = (key: string, mtime = Date.now() / 1000) =>
      // The stack's S3 server takes the time of an object from this note.
      store.put(key, 'x', 'application/octet-stream', never(), { as: 'document', metadata: { mtime: String(mtime) } });
    const old = `${folder}/${run.runId}/backup.capture#2.ledger.json.zst.age`;
    await put(old, Date.now() / 1000 - 25 * 3600);
    const half = `${folder}/${run.runId}/backup.capture.dump.zst.age`;
    const whole = `${folder}/${run.runId}/apply.refresh-backup`;
    const neighbour = `${folder}-two/${run.runId}/backup.capture.dump.zst.age`;
    await put(half);
    for (const ending of ['dump.zst.age', 'ledger.json.zst.age', 'backup.json']) await put(`${whole}.${ending}`);
    await put(neighbour);
    await put(`${folder}/${run.runId}/report.json`);
    // Of a service with a prefix that leads here: not even with --forgotten.
    const foreign = `${folder}/theirs/${run.runId}/backup.capture.dump.zst.age`;
    await put(foreign, Date.now() / 1000 - 25 * 3600);

    const { leftovers } = await sweep('--remove', '--forgotten');
    expect(await store.head(foreign, never())).toBeDefined();
    const objects = leftovers.filter(({ kind }) => kind === 'object');
    expect(objects.map((object) => object.kind === 'object' && object.key)).toEqual([old, half]);
    expect(objects[0]).toMatchObject({ owner: { step: 'backup.capture#2' }, verdict: { kind: 'removed' } });
    expect(await store.head(old, never())).toBeUndefined();
    expect(objects[1]).toMatchObject({
      key: half,
      bytes: 1,
      owner: { service, runId: run.runId, workflowId: `migrate-${service}`, step: 'backup.capture' },
      run: 'ended',
      // Not a day old: a dump may take that long.
      verdict: { kind: 'kept', why: expect.stringContaining('stay until') },
    });
    expect(await store.head(half, never())).toBeDefined();
  });

  test('finds interrupted uploads', async () => {
    const run = await ownerRun('ended', `migrate-${service}`);
    const key = `${folder}/${run.runId}/backup.capture.dump.zst.age`;
    const { s3 } = stack;
    const client = new S3Client({ ...s3, forcePathStyle: true, credentials: s3 });
    const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket: s3.bucket, Key: key }));
    client.destroy();
    expect((await sweep()).leftovers).toContainEqual(
      expect.objectContaining({ kind: 'upload', key, uploadId: UploadId, run: 'ended' }),
    );
    await store.abortUploads(key, never());
  });

  test('tells what it could not look at, and exits with 1', async () => {
    const { service: other } = await writeServiceProfile(cli.profiles, {
      ...production,
      administratorUrl: 'postgresql://nobody:s3cret-word@127.0.0.1:9/postgres',
    });
    const { code, stdout, stderr } = await cli.runbook('sweep', other, '--profiles', cli.profiles);
    expect(code).toBe(1);
    expect(stderr).toContain('runbook: the production server could not be looked at: ');
    expect(stdout + stderr).not.toContain('s3cret-word');
  });

  test('names the services that have a profile', async () => {
    const { code, stderr } = await cli.runbook('sweep', 'no-such-service', '--profiles', cli.profiles);
    expect(code).toBe(1);
    expect(stderr).toContain('has no profile; known services: ');
  });
});

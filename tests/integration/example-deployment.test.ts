import { execFile } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { addScenarioRows, deployExample, resetExample, stopExample } from '../../scripts/stack/example.ts';
import type { Example } from '../../scripts/stack/example.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { readEnvironmentFile } from '../../src/profile/environment-file.ts';
import { randomName, useStack } from '../stack.ts';

const run = promisify(execFile);

describe('the example service on the stack', () => {
  const stack = useStack();
  let example: Example;

  beforeAll(async () => {
    example = await deployExample(stack, { database: randomName('deployment') });
  }, 180_000);
  afterAll(() => stopExample(example));

  test('serves the release of its tag from seeded databases', async () => {
    expect(await health(example)).toMatchObject({ status: 'ok', release: '1.0.0', schema_revision: '0002_audit_log' });
    for (const url of [example.urls.production.backup, example.urls.staging.application]) {
      const { rows } = await withClient(url, (client) =>
        client.query<{ recordings: number }>('SELECT count(*)::int AS recordings FROM recordings'),
      );
      expect(rows[0]?.recordings).toBe(4000);
    }
  });

  test('lets production and staging be reached with their own secrets only', async () => {
    const crossed = new URL(example.urls.production.migrator);
    crossed.port = String(stack.postgres.staging.port);
    crossed.pathname = `/${example.databases.staging}`;
    await expect(withClient(crossed.href, (client) => client.query('SELECT'))).rejects.toThrow(
      'password authentication failed',
    );
    const { rows } = await withClient(example.urls.production.migrator, (client) =>
      client.query('SELECT session_user, current_user'),
    );
    expect(rows).toEqual([{ session_user: 'whisper_migrator', current_user: 'whisper_owner' }]);
    await expect(
      withClient(example.urls.production.backup, (client) => client.query('DELETE FROM recordings')),
    ).rejects.toThrow(/read-only|permission denied/);
  });

  test('hands out each secret by its name, and nothing else', async () => {
    const secretctl = (...words: readonly string[]) => run(join(example.binDirectory, 'secretctl'), words);
    for (const [name, value] of Object.entries(example.secrets))
      expect((await secretctl('read', name)).stdout).toBe(value);
    await expect(secretctl('read', '../age-identity')).rejects.toMatchObject({ code: 2 });
    await expect(secretctl('read', 'prod/nothing')).rejects.toMatchObject({ code: 1 });
    expect((await stat(join(example.secretsDirectory, 'backups/AGE_IDENTITY'))).mode & 0o077).toBe(0);
  });

  test('writes an environment file that keeps spaces, quotes and hashes', async () => {
    expect(await readEnvironmentFile(example.environmentFile)).toEqual({
      DATABASE_URL: example.urls.staging.migrator,
      REDIS_URL: example.redis.staging,
      ADMIN_PASSWORD: example.secrets['staging/whisper-transcriber/ADMIN_PASSWORD'],
      SERVICE_TITLE: 'Whisper Transcriber # staging',
      SUPPORT_CONTACT: 'Media Team',
    });
    expect(await readFile(example.environmentFile, 'utf8')).toContain('"');
    expect((await stat(example.environmentFile)).mode & 0o077).toBe(0);
  });

  test('dispatches tasks to its own worker and logs its administrator in', async () => {
    const { stdout } = await run(stack.venv.python, ['smoke/transcription.py', '--base-url', example.apiUrl ?? ''], {
      cwd: example.checkout,
    });
    expect(JSON.parse(stdout)).toMatchObject({ ok: true });
    const login = await fetch(`${example.apiUrl}/auth/login`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(example.admin),
    });
    expect(login.status).toBe(200);
  });

  test('is as on the first day after a reset, at the same address', async () => {
    const before = await fingerprint(example.urls.production.backup);
    const leftover = `${example.databases.production}_restored`;
    await withClient(example.urls.production.administrator, (client) => client.query(`CREATE DATABASE ${leftover}`));
    await addScenarioRows(example, 'v1.2.0-fails');
    await withClient(example.urls.production.migrator, (client) =>
      client.query('ALTER TABLE recordings ADD COLUMN reviewed boolean; DELETE FROM transcripts'),
    );
    expect(await fingerprint(example.urls.production.backup)).not.toEqual(before);
    await resetExample(example);
    expect(await health(example)).toMatchObject({ status: 'ok', schema_revision: '0002_audit_log' });
    expect(await fingerprint(example.urls.production.backup)).toEqual({ ...before, uploads: 4000 });
    const { rows } = await withClient(stack.postgres.primary.superuserUrl, (client) =>
      client.query('SELECT datname FROM pg_database WHERE starts_with(datname, $1)', [example.databases.production]),
    );
    expect(rows).toEqual([{ datname: example.databases.production }]);
  }, 120_000);
});

async function health(example: Example): Promise<unknown> {
  return (await fetch(`${example.apiUrl}/healthz`)).json();
}

interface Fingerprint {
  readonly uploads: number;
  readonly users: string;
  readonly transcripts: string;
  readonly columns: number;
}

/** What the scenario and the change by hand alter. `uploads` counts what the smoke check adds, too. */
async function fingerprint(url: string): Promise<Fingerprint | undefined> {
  const { rows } = await withClient(url, (client) =>
    client.query<Fingerprint>(`
      SELECT (SELECT count(*)::int FROM recordings) AS uploads,
             (SELECT md5(string_agg(email, ',' ORDER BY id)) FROM users) AS users,
             (SELECT md5(string_agg(text, ',' ORDER BY id)) FROM transcripts WHERE engine = 'stand-in-1' AND recording_id <= 4000) AS transcripts,
             (SELECT count(*)::int FROM information_schema.columns WHERE table_schema = 'public') AS columns`),
  );
  return rows[0];
}

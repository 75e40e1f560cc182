import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createBackupActivities } from '../../src/activities/backup/backup.ts';
import { runCommandLine } from '../../src/commands/program.ts';
import type { BackupEvidence } from '../../src/contract/evidence/backup.ts';
import type { DrillRecord } from '../../src/contract/evidence/drill.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { testRun } from '../integration-context.ts';
import { createService, query, type TestService, withClient } from '../postgres-service.ts';
import { createRole, databaseUrl, useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { useWorker } from '../worker.ts';
import { never, openTestStore } from './archive-source.ts';
import { type ServiceProfile, writeServiceProfile } from './service-profile.ts';

const stack = useStack();
const { primary, scratch } = stack.postgres;
const store = openTestStore();
let profiles: string;
let production: TestService;

beforeAll(async () => {
  profiles = await temporaryDirectory('drill');
  production = await createService(primary);
});
const worker = useWorker(() => profiles);

const activities = createBackupActivities({ secrets: createSecretVault() });
const asActivity = <T>(work: () => Promise<T>): Promise<T> =>
  new MockActivityEnvironment({ heartbeatTimeoutMs: 4_000 }, { logger: new DefaultLogger('ERROR') }).run(work);

interface BackedUp extends ServiceProfile {
  readonly backup: BackupEvidence;
  readonly verify: () => ReturnType<typeof activities.verifyBackup>;
}

/** A service of its own with one backup of the production database, not verified yet. */
async function backUp(): Promise<BackedUp> {
  const target = await writeServiceProfile(profiles, production);
  const input = { run: { ...testRun, runId: randomUUID(), service: target.service }, profile: target.profile };
  const backup = await asActivity(() => activities.captureBackup({ ...input, step: 'backup.capture' }));
  return { ...target, backup, verify: () => asActivity(() => activities.verifyBackup({ ...input, backup })) };
}

async function runbook(...words: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let stdout = '';
  let stderr = '';
  const code = await runCommandLine(words, {
    isTerminal: false,
    print: (text) => (stdout += `${text}\n`),
    note: (text) => (stderr += `${text}\n`),
    replace: () => undefined,
  });
  return { code, stdout, stderr };
}

const drill = (service: string, ...words: string[]) =>
  runbook('drill', service, '--by', 'dana@example.com', '--task-queue', worker.taskQueue, '--wait', ...words);

async function records({ folder }: ServiceProfile): Promise<DrillRecord[]> {
  const objects = await store.list(`${folder}/drills/`, never());
  return Promise.all(
    objects.map(async ({ key }) => JSON.parse(Buffer.from((await store.get(key, never()))!).toString()) as DrillRecord),
  );
}

const dropPlaceholders = async (): Promise<void> => {
  for (const name of Object.values(production.roles))
    await query(scratch.superuserUrl, `DROP ROLE IF EXISTS "${name}"`);
};
afterAll(() => dropPlaceholders());

const leftOnScratch = (service: string): Promise<{ datname: string }[]> =>
  query(scratch.superuserUrl, 'SELECT datname FROM pg_database WHERE starts_with(datname, $1)', [service]);

describe('a drill on the real parts', () => {
  test('restores the latest verified backup on the scratch server, compares, records, leaves nothing', async () => {
    const target = await backUp();
    expect((await target.verify()).predictedRestore.from).toBe('dump');
    const { code, stdout, stderr } = await drill(target.service);
    expect({ code, stdout, stderr }).toEqual({
      code: 0,
      stdout: expect.stringContaining('came back as it was'),
      stderr: '',
    });

    const [record] = await records(target);
    expect(record).toMatchObject({
      outcome: 'passed',
      service: target.service,
      requestedBy: 'dana@example.com',
      backup: { uri: target.backup.uri },
      restored: { rows: 2501, tables: 3 },
    });
    expect(record!.uri).toMatch(/\/drills\/\d{8}T\d{6}Z-[0-9a-f]{12}\.json$/);
    expect(record!.milliseconds).toBeGreaterThan(0);
    expect(await leftOnScratch(target.service)).toEqual([]);

    // Roles that only production has: nobody can log in with them.
    const roles = [production.roles.owner, production.roles.application];
    const found = await query<{ rolcanlogin: boolean; rolpassword: string | null; rolsuper: boolean }>(
      scratch.superuserUrl,
      'SELECT rolcanlogin, rolpassword, rolsuper FROM pg_authid WHERE rolname = ANY ($1)',
      [roles],
    );
    expect(found).toEqual(roles.map(() => ({ rolcanlogin: false, rolpassword: null, rolsuper: false })));

    // From now on predictions go by it.
    expect((await target.verify()).predictedRestore).toEqual({ from: 'drill', milliseconds: record!.milliseconds });
  });

  test('needs no superuser on the scratch server', async () => {
    const target = await backUp();
    await target.verify();
    const role = await createRole(scratch, 'scratch_admin', 'CREATEDB CREATEROLE');
    await writeFile(join(profiles, `${target.service}-scratch`), databaseUrl(scratch, 'postgres', role));
    // Placeholders of an earlier administrator are not this one's to act as: it needs roles of its own making.
    await dropPlaceholders();
    expect(await drill(target.service)).toMatchObject({ code: 0, stdout: expect.stringContaining('passed: ') });
    expect(await leftOnScratch(target.service)).toEqual([]);
    await dropPlaceholders();
  });

  test('of a damaged backup fails with the place, is recorded as failed, and leaves nothing', async () => {
    const target = await backUp();
    await target.verify();
    const { key } = target.backup;
    const bytes = Buffer.from((await store.get(key, never()))!);
    bytes[bytes.byteLength - 20]! ^= 0x01;
    await store.put(key, bytes, 'application/octet-stream', never());

    const { code, stdout } = await drill(target.service);
    expect(code).toBe(1);
    expect(stdout).toContain(
      `The drill of ${target.service} failed: The backup ${target.backup.uri} cannot be trusted`,
    );
    expect(await records(target)).toMatchObject([{ outcome: 'failed', milliseconds: null, restored: null }]);
    expect(await leftOnScratch(target.service)).toEqual([]);
  });

  test('that is cancelled in the middle of its work stops it, leaves nothing and is recorded', async () => {
    const target = await backUp();
    await target.verify();
    const { owner } = production.roles;
    await dropPlaceholders();
    // The drill waits for this transaction: it wants a role of the same name.
    await withClient(scratch.superuserUrl, async (client) => {
      await client.query('BEGIN');
      await client.query(`CREATE ROLE ${owner}`);
      const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
      const ended = drill(target.service);
      // From beside: inside a transaction the view stands still.
      const waiting = 'SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))';
      while ((await query(scratch.superuserUrl, waiting, [rows[0]!.pid])).length === 0) await sleep(100);
      await worker.client.workflow.getHandle(`drill-${target.service}`).cancel();
      expect(await ended).toMatchObject({
        code: 1,
        stdout: expect.stringContaining('cancelled; the scratch database'),
      });
      await client.query('ROLLBACK');
    });
    expect(await records(target)).toMatchObject([{ outcome: 'failed', why: 'the drill was cancelled' }]);
    expect(await leftOnScratch(target.service)).toEqual([]);
  });

  test('is refused without a verified backup, unless one is named', async () => {
    const target = await backUp();
    const refused = await drill(target.service);
    expect(refused.code).toBe(1);
    expect(refused.stdout).toContain('none of the 1 backups below');
    expect(await records(target)).toEqual([]);
    const named = await drill(target.service, '--backup', target.backup.manifest);
    expect(named).toMatchObject({ code: 0, stdout: expect.stringContaining('passed: ') });
  });

  test('is refused while a manifest cannot be read: it may be that of the latest backup', async () => {
    const target = await backUp();
    await target.verify();
    const key = `${target.folder}/${randomUUID()}/backup.capture.backup.json`;
    await store.put(key, '{"format":', 'application/json', never());
    const refused = await drill(target.service);
    expect(refused.code).toBe(1);
    expect(refused.stdout).toContain(key);
    expect(await drill(target.service, '--backup', target.backup.uri)).toMatchObject({ code: 0 });
  });

  test('is refused on the production server', async () => {
    const target = await backUp();
    await target.verify();
    await writeFile(join(profiles, `${target.service}-scratch`), primary.superuserUrl);
    const { code, stdout } = await drill(target.service);
    expect(code).toBe(1);
    expect(stdout).toContain('the scratch server is the production server');
    expect(
      await query(primary.superuserUrl, 'SELECT FROM pg_database WHERE starts_with(datname, $1)', [target.service]),
    ).toEqual([]);
  });
});

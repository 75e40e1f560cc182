import { randomUUID } from 'node:crypto';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { beforeAll, describe, expect, test } from 'vitest';
import { createBackupActivities } from '../../src/activities/backup/backup.ts';
import { findManifest, writeManifest } from '../../src/archive/manifest.ts';
import { runCommandLine } from '../../src/commands/program.ts';
import type { BackupEvidence, BackupManifest } from '../../src/contract/evidence/backup.ts';
import type { StepInput } from '../../src/contract/evidence/step.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { testRun } from '../integration-context.ts';
import { createService } from '../postgres-service.ts';
import { useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { never, openTestStore } from './archive-source.ts';
import { type ServiceProfile, writeServiceProfile } from './service-profile.ts';

const stack = useStack();
const store = openTestStore();
let profiles: string;
let target: ServiceProfile;
let backup: BackupEvidence;

const activities = createBackupActivities({ secrets: createSecretVault() });
const asActivity = <T>({ run: { runId, workflowId } }: StepInput, work: () => Promise<T>): Promise<T> =>
  new MockActivityEnvironment(
    { heartbeatTimeoutMs: 4_000, workflowExecution: { workflowId, runId } },
    { logger: new DefaultLogger('ERROR') },
  ).run(work);

const inputOf = (runId: string): StepInput => ({
  run: { ...testRun, runId, service: target.service },
  profile: target.profile,
});

beforeAll(async () => {
  profiles = await temporaryDirectory('cli-backup');
  target = await writeServiceProfile(profiles, await createService(stack.postgres.primary));
  const input = inputOf(randomUUID());
  backup = await asActivity(input, () => activities.captureBackup({ ...input, step: 'backup.capture' }));
  await asActivity(input, () => activities.verifyBackup({ ...input, backup }));
});

async function runbook(...words: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let stdout = '';
  let stderr = '';
  const code = await runCommandLine([...words, '--profiles', profiles], {
    isTerminal: false,
    print: (text) => (stdout += `${text}\n`),
    note: (text) => (stderr += `${text}\n`),
    replace: () => undefined,
  });
  return { code, stdout, stderr };
}

const verify = (which: string, ...words: string[]) =>
  runbook('backup', 'verify', which, '--service', target.service, ...words);

/** Replaces one byte in the middle, and puts the object back as it was afterwards. */
async function withDamage(uri: string, work: () => Promise<void>): Promise<void> {
  const key = uri.slice(store.uri('').length);
  const whole = (await store.get(key, never()))!;
  const broken = Buffer.from(whole);
  broken[broken.byteLength >> 1]! ^= 0x10;
  await store.put(key, broken, 'application/octet-stream', never());
  try {
    await work();
  } finally {
    await store.put(key, whole, 'application/octet-stream', never());
  }
}

describe('runbook backup list', () => {
  test('shows the newest first, with run, release, size and proof', async () => {
    const second = inputOf(randomUUID());
    const newer = await asActivity(second, () => activities.captureBackup({ ...second, step: 'apply.refresh-backup' }));
    const { code, stdout, stderr } = await runbook('backup', 'list', target.service);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.indexOf(newer.uri)).toBeLessThan(stdout.indexOf(backup.uri));
    expect(stdout.indexOf(newer.uri)).toBeGreaterThan(0);
    expect(stdout).toMatch(/^20.* UTC {2}v1\.1\.0 {2}CHG-1042 \/ urgent {2}.* \(database .* MB\), NOT verified$/m);
    expect(stdout).toMatch(/, verified 20.* UTC by run .*$/m);
    expect(stdout).toContain(`    run ${second.run.runId}, step apply.refresh-backup\n`);

    const json = await runbook('backup', 'list', target.service, '--json');
    const manifests = JSON.parse(json.stdout) as BackupManifest[];
    expect(manifests.map(({ backup: { uri } }) => uri)).toEqual([newer.uri, backup.uri]);

    expect(await verify('latest', '--record')).toMatchObject({ code: 0 });
    const after = await runbook('backup', 'list', target.service);
    expect(after.stdout).toContain('by runbook backup verify on ');
    expect(after.stdout).not.toContain('NOT verified');
  });

  test('names a manifest that cannot be believed, and still shows the others', async () => {
    await withDamage(backup.manifest, async () => {
      const { code, stdout, stderr } = await runbook('backup', 'list', target.service);
      expect(code).toBe(1);
      expect(stdout).toContain('apply.refresh-backup');
      expect(stderr).toContain(backup.manifest);
      const latest = await verify('latest');
      expect(latest.code).toBe(1);
    });
  });

  test('leaves out backups of a service whose prefix leads below this one’s folder', async () => {
    const manifest = await findManifest(store, backup.uri, never());
    const { folder } = target;
    const theirs = {
      ...backup,
      capturedAt: new Date().toISOString(),
      manifest: store.uri(`${folder}/x/a.backup.json`),
    };
    await writeManifest(store, { ...manifest, service: 'x', backup: theirs }, never());
    try {
      const { stdout } = await runbook('backup', 'list', target.service, '--json');
      expect((JSON.parse(stdout) as BackupManifest[]).map(({ service }) => service)).toEqual(
        expect.not.arrayContaining(['x']),
      );
    } finally {
      await store.delete(`${folder}/x/a.backup.json`, never());
    }
  });

  test('says that there is none', async () => {
    const { service } = await writeServiceProfile(profiles, await createService(stack.postgres.primary));
    expect(await runbook('backup', 'list', service)).toEqual({
      code: 0,
      stdout: `there is no backup of ${service}\n`,
      stderr: '',
    });
    expect(await runbook('backup', 'verify', 'latest', '--service', service)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`there is no backup of ${service}`),
    });
  });
});

describe('runbook backup verify', () => {
  test('passes a whole backup by the URI of its dump or its manifest', async () => {
    for (const uri of [backup.uri, backup.manifest]) {
      const { code, stdout } = await verify(uri);
      expect(code).toBe(0);
      expect(stdout).toContain(`passed: ${backup.uri}`);
      expect(stdout).toContain(backup.sha256);
    }
    const json = await verify(backup.uri, '--json');
    expect(JSON.parse(json.stdout)).toMatchObject({ passed: true, dumpSha256: backup.dumpSha256 });
  });

  test('refuses a damaged one and names the place', async () => {
    await withDamage(backup.uri, async () => {
      const { code, stdout, stderr } = await verify(backup.uri);
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toMatch(/cannot be trusted: .*byte/);
      const json = await verify(backup.uri, '--json');
      expect(json.code).toBe(1);
      expect(JSON.parse(json.stdout)).toMatchObject({ passed: false, type: 'BackupDamaged' });
    });
  });

  test.each([
    ['s3://another-bucket/x.dump.zst.age', 'is not in this bucket'],
    ['report.json', 'is not in this bucket'],
  ])('refuses %s with what is wrong', async (uri, message) => {
    const { code, stderr } = await verify(uri);
    expect(code).toBe(1);
    expect(stderr).toContain(message);
  });

  test('refuses a backup of another service', async () => {
    const other = await writeServiceProfile(profiles, await createService(stack.postgres.primary));
    const { code, stderr } = await runbook('backup', 'verify', backup.uri, '--service', other.service);
    expect(code).toBe(1);
    expect(stderr).toContain(`is a backup of the service ${target.service}, not of ${other.service}`);
  });
});

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { parseDocument } from 'yaml';
import type { CheckedProfile } from '../../src/commands/check-profile.ts';
import { runCommandLine } from '../../src/commands/program.ts';
import { StepError } from '../../src/contract/errors.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const template = await readFile(new URL('../../config/profile-template.yaml', import.meta.url), 'utf8');

let folder: string;
beforeEach(async () => {
  folder = await temporaryDirectory('runbook-check');
});

/** A profile in the folder: the template with something changed. */
async function write(
  service: string,
  changes: readonly (readonly [readonly string[], unknown])[] = [],
): Promise<string> {
  const document = parseDocument(template);
  document.set('service', service);
  for (const [keys, value] of changes) document.setIn(keys, value);
  const file = join(folder, `${service}.yaml`);
  await writeFile(file, String(document));
  return file;
}

async function check(...words: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let [stdout, stderr] = ['', ''];
  const code = await runCommandLine(['check', ...words], {
    isTerminal: false,
    print: (text) => void (stdout += `${text}\n`),
    note: (text) => void (stderr += `${text}\n`),
    replace: () => undefined,
  });
  return { code, stdout, stderr };
}

describe('runbook check', () => {
  test('names every finding of a profile, word for word as a run is refused with', async () => {
    const file = await write('player', [
      [['window', 'length'], 90],
      [['approvals', 'required'], 0],
      [['fence'], 'sometimes'],
    ]);
    const refused = await loadProfile(folder, 'player').catch((error: unknown) => error);
    const findings = refused instanceof StepError ? (refused.details['findings'] as string[]) : [];
    expect(findings).toHaveLength(3);
    expect(await check(file)).toEqual({
      code: 1,
      stdout: `${file}: REFUSED, 3 finding(s)\n${findings.map((text) => `  ${text}\n`).join('')}`,
      stderr: 'runbook: 1 of 1 profile(s) would be refused\n',
    });
  });

  test('says what an accepted profile says, needing neither a server nor the secrets', async () => {
    const { code, stdout, stderr } = await check(await write('player'), '--secrets', 'skip');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/: accepted\n {2}service +player: Uploads/);
    expect(stdout).toContain(
      'production: 1 approval(s) of alex@example.com, robin@example.com, signed (SSH), within 4 h,',
    );
    expect(stdout).toMatch(/ {2}fence +read-only for everybody but the migration\n/);
    expect(stdout).toMatch(/ {2}window +1 h from the approval on/);
    expect(stdout).toMatch(/ {2}rehearsal +holds 24 h and until production has grown by 20 %/);
    expect(stdout).toMatch(/ {2}recovery +rollback ask, restore ask; a replaced database is kept 14 d;/);
    expect(stdout).toMatch(/ {2}secrets +not tried\n/);
    const { digest } = await loadProfile(folder, 'player');
    expect(stdout).toContain(digest);
  });

  test('tells which secrets resolve here, names databases, and shows no value', async () => {
    await writeFile(join(folder, 'url'), 'postgresql://migrator:rosebud-4711@db-7.internal:5432/player_live\n', {
      mode: 0o600,
    });
    await writeFile(join(folder, 'no-url'), 'swordfish-4712\n', { mode: 0o600 });
    const file = await write('player', [
      [['databases', 'production', 'migrator'], { file: 'url' }],
      [['databases', 'staging', 'migrator'], { file: 'no-url' }],
      [['backup', 'accessKeyId'], { environment: 'CHECK_TEST_NOT_SET' }],
    ]);
    const { code, stdout } = await check(file);
    expect(code).toBe(0);
    expect(stdout).toContain('production player_live;');
    expect(stdout).toContain('staging (name not known here)');
    expect(stdout).toContain('1 of 15 resolve on this machine; workers resolve them on theirs');
    expect(stdout).toContain('✓ databases.production.migrator: the file url\n');
    expect(stdout).toContain('✗ databases.staging.migrator: a database address is not a URL of the form');
    expect(stdout).toContain('✗ backup.accessKeyId: the environment variable CHECK_TEST_NOT_SET is not set');
    const json = await check(file, '--json');
    for (const text of [stdout, json.stdout]) expect(text).not.toMatch(/rosebud|swordfish|db-7/);
  });

  test('fails where secrets are required here and one does not resolve', async () => {
    const { code, stdout, stderr } = await check(await write('player'), '--secrets', 'require');
    expect(code).toBe(1);
    expect(stdout).toContain(': accepted\n');
    expect(stderr).toBe('runbook: not every secret resolves on this machine\n');
  });

  test('runs no program of the profile when secrets are skipped', async () => {
    const file = await write('player', [
      [['databases', 'production', 'migrator'], { command: ['/bin/sh', '-c', 'touch ran'] }],
    ]);
    await check(file, '--secrets', 'skip');
    await expect(readFile(join(folder, 'ran'))).rejects.toThrow('ENOENT');
    await check(file);
    await expect(readFile(join(folder, 'ran'))).resolves.toBeDefined();
  });

  test('checks a folder, and goes on after one that is refused', async () => {
    await write('player');
    await write('archive', [[['lint', 'refuse'], 'everything']]);
    const { code, stdout, stderr } = await check(folder, '--format', 'json', '--secrets', 'skip');
    expect(code).toBe(1);
    expect(stderr).toBe('runbook: 1 of 2 profile(s) would be refused\n');
    const [archive, player] = JSON.parse(stdout) as CheckedProfile[];
    expect(archive).toMatchObject({ file: join(folder, 'archive.yaml'), accepted: false });
    expect(archive?.accepted === false && archive.findings).toEqual([
      expect.stringMatching(/^archive\.yaml:\d+: lint\.refuse: /),
    ]);
    expect(player).toMatchObject({ accepted: true, service: 'player', secrets: null, profile: { service: 'player' } });
  });

  test('refuses what no worker would read', async () => {
    const file = await write('player');
    const other = join(folder, 'other.yml');
    await writeFile(other, await readFile(file));
    expect((await check(other)).stdout).toContain('other.yml: workers read <service>.yaml only');
    const renamed = join(folder, 'renamed.yaml');
    await writeFile(renamed, await readFile(file));
    expect((await check(renamed)).stdout).toContain('renamed.yaml: service: is not the name of the file');
    expect(await check(join(folder, 'none.yaml'))).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('is not there'),
    });
    expect(await check()).toMatchObject({ code: 2 });
  });
});

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { createRehearsalScratchActivities } from '../../src/activities/dry-run/rehearsal-scratch.ts';
import type { FreshnessInput } from '../../src/contract/evidence/rehearsal.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { testRun } from '../integration-context.ts';
import { createService, execute, query, type TestService } from '../postgres-service.ts';
import { useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { asActivity } from './rehearsal-world.ts';
import { writeServiceProfile } from './service-profile.ts';

const run = promisify(execFile);
let home: string;
let production: TestService;
let input: FreshnessInput;
let bytes: number;

const git = async (...words: readonly string[]): Promise<string> => {
  const identity = ['-c', 'user.name=Test', '-c', 'user.email=test@example.com'];
  return (await run('git', ['-C', home, ...identity, ...words])).stdout.trim();
};

beforeAll(async () => {
  home = await temporaryDirectory('freshness');
  await git('init', '--quiet', '--initial-branch=main');
  await git('commit', '--quiet', '--allow-empty', '--message', 'One');
  await git('tag', 'v1.1.0');
  production = await createService(useStack().postgres.primary);
  const { profile } = await writeServiceProfile(home, production);
  const [size] = await query<{ bytes: number }>(
    production.superuserUrl,
    'SELECT pg_database_size(current_database())::float8 AS bytes',
  );
  bytes = size!.bytes;
  input = {
    run: testRun,
    profile: { ...profile, repository: { ...profile.repository, url: home } },
    commit: await git('rev-parse', 'HEAD'),
    rehearsed: { databaseBytes: bytes },
  };
});

const check = (change: Partial<FreshnessInput> = {}) =>
  asActivity(() =>
    createRehearsalScratchActivities({ secrets: createSecretVault() }).checkFreshness({ ...input, ...change }),
  );

const allowing = (maximumGrowth: number): Partial<FreshnessInput> => ({
  profile: { ...input.profile, rehearsal: { ...input.profile.rehearsal, maximumGrowth } },
});

describe('a rehearsal', () => {
  it('holds while tag and production are as they were', async () => {
    const found = await check();
    expect(found).toMatchObject({ expired: [], commit: input.commit });
    expect(found.databaseBytes).toBeGreaterThan(0);
  });

  it('does not hold once production has grown beyond what the profile allows', async () => {
    await execute(
      production.superuserUrl,
      'CREATE TABLE public.growth AS SELECT g, md5(g::text) AS t FROM generate_series(1, 60000) g',
    );
    expect((await check(allowing(0.1))).expired).toEqual([
      expect.stringMatching(/^production has grown by \d+ % since/),
    ]);
    expect((await check(allowing(100))).expired).toEqual([]);
  });

  it('does not hold for another commit, and tells which it is', async () => {
    await git('commit', '--quiet', '--allow-empty', '--message', 'Two');
    await git('tag', '--force', 'v1.1.0');
    const moved = await git('rev-parse', 'HEAD');
    const found = await check(allowing(100));
    expect(found).toMatchObject({
      commit: moved,
      expired: [expect.stringContaining(`names ${moved.slice(0, 12)} now`)],
    });
  });

  it('cannot be judged without its tag', async () => {
    await git('tag', '--delete', 'v1.1.0');
    await expect(check()).rejects.toMatchObject({ type: 'StepRefused' });
  });
});

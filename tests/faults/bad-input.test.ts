import { beforeAll, describe, expect, it } from 'vitest';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { runCommand } from '../../scripts/stack/command.ts';
import { deployExample, type Example } from '../../scripts/stack/example.ts';
import { endOf, startMigration } from '../../scripts/scenarios/driving.ts';
import { type ProfileChanges, writeProfile } from '../../scripts/scenarios/profile.ts';
import { compareWithReality, takePicture } from '../../scripts/scenarios/reality.ts';
import type { MigrationRequest } from '../../src/contract/request.ts';
import type { ProfileDocument } from '../../src/profile/schema.ts';
import { randomName, useStack } from '../stack.ts';
import { useWorker } from '../worker.ts';

const stack = useStack();
let example: Example;
let profiles = '';

beforeAll(async () => {
  example = await deployExample(stack, { database: randomName('refused') });
  profiles = (await writeProfile(example)).directory;
}, 120_000);

const worker = useWorker(() => profiles);

interface Refused {
  readonly changes?: ProfileChanges;
  readonly request?: Partial<MigrationRequest>;
}

/** Starts a run that has to be refused; returns its findings, after a look at production and at what is owed. */
async function refused({ changes = {}, request = {} }: Refused): Promise<readonly string[]> {
  const service = request.service ?? randomName('service').replaceAll('_', '-');
  if (request.service === undefined) await writeProfile(example, { ...changes, service });
  const before = await takePicture(example);
  const handle = await startMigration(
    { ...worker, client: worker.client, profile: { service } },
    { releaseTag: 'v1.1.0', ...request },
  );
  const end = await endOf(handle);
  expect(end.outcome).toBe('aborted');
  const findings = await compareWithReality(example, {
    outcome: 'aborted',
    before,
    loaded: before,
    targetRevision: '',
  });
  expect(findings).toEqual([]);
  return end.findings ?? [];
}

const edited = (edit: (document: ProfileDocument) => void): Refused => ({
  changes: {
    edit: (document) => {
      edit(document);
      return document;
    },
  },
});

/** An address as a secret reference that prints it: wrong addresses are secrets like right ones. */
async function reference(url: string): Promise<{ file: string }> {
  const file = path.join(example.directory, `${randomName('address')}`);
  await writeFile(file, url, { mode: 0o600 });
  return { file };
}

describe('refused before production is touched, in words that say what to do', () => {
  it('an unknown service, with the known ones', async () => {
    expect(await refused({ request: { service: 'nobody-knows' } })).toEqual([expect.stringContaining('nobody-knows')]);
  });

  it('an unknown tag', async () => {
    expect(await refused({ request: { releaseTag: 'v9.9.9' } })).toEqual([expect.stringContaining('v9.9.9')]);
  });

  it('a window in the past, and one that ends before it starts', async () => {
    const request = { windowStart: '2020-01-01T02:00:00Z', windowEnd: '2020-01-01T01:00:00Z' };
    const findings = await refused({ request });
    expect(findings).toEqual([expect.stringContaining('before or as it starts'), expect.stringContaining('past')]);
  });

  it('malformed YAML', async () => {
    const service = randomName('broken').replaceAll('_', '-');
    await writeFile(path.join(profiles, `${service}.yaml`), 'service: [unclosed\n  x');
    expect(await refused({ request: { service } })).toEqual([expect.stringMatching(/\.yaml:\d+:\d+/)]);
  });

  it('several mistakes in a profile, all in one message', async () => {
    const findings = await refused(
      edited((document) => {
        Object.assign(document, { colour: 'red' });
        Object.assign(document.approvals, { required: 0 });
        Object.assign(document.backup, { recipients: [] });
      }),
    );
    expect(findings.length).toBeGreaterThanOrEqual(3);
  });

  it('a missing secret', async () => {
    const findings = await refused(
      edited((document) => {
        document.databases.production.backup = { environment: 'NO_SUCH_VARIABLE_HERE' };
      }),
    );
    expect(findings.join()).toContain('NO_SUCH_VARIABLE_HERE');
  });

  it('an unreachable database, a wrong password and an absent bucket, together', async () => {
    const wrongPassword = new URL(example.urls.production.backup);
    wrongPassword.password = 'wrong';
    const [nowhere, wrong] = [
      await reference('postgresql://someone:secret@127.0.0.1:1/nothing'),
      await reference(wrongPassword.href),
    ];
    const findings = await refused(
      edited((document) => {
        document.databases.staging.administrator = nowhere;
        document.databases.production.backup = wrong;
        document.backup.bucket = 'no-such-bucket-here';
      }),
    );
    expect(findings.join('\n')).toMatch(/staging[\s\S]*127\.0\.0\.1:1|127\.0\.0\.1:1[\s\S]*staging/i);
    expect(findings.join('\n')).toMatch(/password/i);
    expect(findings.join('\n')).toContain('no-such-bucket-here');
    expect(findings.join('\n')).not.toContain('secret@');
  });

  it('staging that turns out to be production, however it is addressed', async () => {
    const administrator = await reference(example.urls.production.administrator.replace('127.0.0.1', 'localhost'));
    const migrator = await reference(example.urls.production.migrator.replace('127.0.0.1', 'localhost'));
    const findings = await refused(
      edited((document) => {
        document.databases.staging = { administrator, migrator };
      }),
    );
    expect(findings.join()).toMatch(/IS the production database/);
  });

  it('client programs of another major version', async () => {
    const programs = path.join(example.directory, 'old-programs');
    await mkdir(programs, { recursive: true });
    for (const name of ['psql', 'pg_dump', 'pg_restore']) {
      await writeFile(path.join(programs, name), `#!/bin/sh\necho "${name} (PostgreSQL) 9.6.24"\n`, { mode: 0o755 });
    }
    const findings = await refused(
      edited((document) => {
        document.postgresPrograms = programs;
      }),
    );
    expect(findings.join()).toMatch(/9\.6/);
  });

  it('a database with tables but without a version table', async () => {
    const findings = await refused(
      edited((document) => {
        document.alembic.versionTable = { table: 'no_such_version_table' };
      }),
    );
    expect(findings.join()).toMatch(/no version table public\.no_such_version_table/);
  });

  it('a release with two heads', async () => {
    const repository = await repositoryWithTwoHeads();
    const findings = await refused({
      ...edited((document) => {
        document.repository = { url: repository };
        document.review = { command: ['/bin/sh', '-c', reviewOf(repository)] };
      }),
      request: { releaseTag: 'v2.0.0' },
    });
    expect(findings.join()).toMatch(/head/);
  });

  it('a wrong workflow id and server-side time-outs, with the right command', async () => {
    const { service } = await writeProfile(example, { service: randomName('elsewhere').replaceAll('_', '-') });
    const handle = await worker.client.workflow.start('databaseMigration', {
      taskQueue: worker.taskQueue,
      workflowId: randomName('my-own-id'),
      workflowExecutionTimeout: '1 hour',
      retry: { maximumAttempts: 2 },
      args: [{ service, releaseTag: 'v1.1.0', changeTicket: 'CHG-1', requestedBy: 'dana@example.com' }],
    });
    const { findings = [] } = await endOf(handle);
    expect(findings.join('\n')).toContain(`it must be migrate-${service}`);
    expect(findings.join('\n')).toContain('execution timeout');
    expect(findings.join('\n')).toContain('retry policy');
    expect(findings.join('\n')).toContain('temporal workflow start');
  });
});

it('two profiles of one database meet on the lease', async () => {
  const [one, other] = await Promise.all(
    ['first', 'second'].map((name) => writeProfile(example, { service: randomName(name).replaceAll('_', '-') })),
  );
  const driving = { client: worker.client, taskQueue: worker.taskQueue };
  const first = await startMigration({ ...driving, profile: one! }, { releaseTag: 'v1.1.0' });
  await expect
    .poll(async () => (await first.query<{ step?: { id: string } }>('status')).step?.id, { timeout: 60_000 })
    .toMatch(/^(preconditions\.(announce|monitoring)|tooling|backup)/);
  const second = await startMigration({ ...driving, profile: other! }, { releaseTag: 'v1.1.0' });
  const { outcome, findings = [] } = await endOf(second);
  expect(outcome).toBe('aborted');
  expect(findings.join()).toContain(first.workflowId);
  await first.signal('abort', { by: 'frank@example.com', reason: 'enough' });
  expect((await endOf(first)).outcome).toBe('aborted');
});

async function repositoryWithTwoHeads(): Promise<string> {
  const directory = path.join(example.directory, randomName('two-heads'));
  const git = (...words: string[]): Promise<string> =>
    runCommand('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.com', '-C', directory, ...words], {
      directory: example.directory,
    });
  await runCommand('git', ['-c', 'safe.directory=*', 'clone', '--quiet', example.repository, directory], {
    directory: example.directory,
  });
  await git('checkout', '--quiet', '-b', 'two', 'v1.0.0');
  for (const name of ['a', 'b']) {
    const revision = `"""${name}"""\nrevision = "9999_${name}"\ndown_revision = "0002_audit_log"\nbranch_labels = None\ndepends_on = None\n\n\ndef upgrade() -> None:\n    pass\n\n\ndef downgrade() -> None:\n    pass\n`;
    await writeFile(path.join(directory, 'api', 'migrations', 'versions', `9999_${name}.py`), revision);
  }
  await git('add', '-A');
  await git('commit', '--quiet', '-m', 'two heads');
  await git('tag', 'v2.0.0');
  return directory;
}

const reviewOf = (repository: string): string =>
  `printf '{"commit":"%s","reviewed":true,"reviewers":["erin@example.com"],"checks":"success"}' "$(git -c safe.directory='*' -C '${repository}' rev-parse 'v2.0.0^{commit}')"`;

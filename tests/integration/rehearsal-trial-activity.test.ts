import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { Client, Connection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createAccessActivities } from '../../src/activities/preconditions/access.ts';
import type { ActivityDependencies } from '../../src/activities/dependencies.ts';
import { rehearseMigration } from '../../src/activities/dry-run/rehearsal-trial.ts';
import { withRunStore } from '../../src/activities/run-store.ts';
import { createSchemaActivities } from '../../src/activities/schema.ts';
import { readStoredText } from '../../src/activities/stored-text.ts';
import type { SchemaValidation } from '../../src/contract/evidence/schema.ts';
import type { GraphEvidence } from '../../src/contract/evidence/tooling.ts';
import type { AlembicRevision } from '../../src/contract/graph.ts';
import type { ArchivedFootprint, ImitatedLogin, RehearsalTrialInput } from '../../src/contract/evidence/rehearsal.ts';
import { parseObjectMap } from '../../src/postgres/catalog/object-map.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { createService as createCheckout, type Revision } from '../fixtures/alembic/service.ts';
import { createService, execute, type TestService } from '../postgres-service.ts';
import { useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { never } from './archive-source.ts';
import { asActivity, rehearsedService, type RehearsedService } from './rehearsal-world.ts';

const stack = useStack();
const secrets = createSecretVault();
let folder: string;
let production: TestService;
let service: RehearsedService;
let deps: ActivityDependencies;
let restore: RehearsalTrialInput['restore'];

beforeAll(async () => {
  folder = await temporaryDirectory('runbook-trial');
  production = await createService(stack.postgres.primary);
  service = await rehearsedService(folder, production);
  restore = await service.restore();
  deps = {
    profilesDirectory: folder,
    stateDirectory: join(folder, 'state'),
    client: new Client({ connection: Connection.lazy({ address: '127.0.0.1:1' }) }),
    secrets,
  };
  await writeFile(join(folder, 'staging.env'), 'MODE=trial\n');
});

afterAll(async () => {
  await service.drop();
});

/** The input of a trial of one revision upon what is deployed. */
async function inputFor(
  upgrade: string,
  downgrade: string,
  profile: Partial<RehearsalTrialInput['profile']> = {},
): Promise<RehearsalTrialInput> {
  const revisions: readonly Revision[] = [
    { id: '0002' },
    { id: '0003', down: '"0002"', upgrade: `op.execute("${upgrade}")`, downgrade: `op.execute("${downgrade}")` },
  ];
  const { root } = await createCheckout(revisions);
  const git = (...args: readonly string[]) =>
    execa('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.com', ...args], { cwd: root });
  await git('init', '--quiet');
  await git('add', '.');
  await git('commit', '--quiet', '-m', 'release');
  const commit = (await git('rev-parse', 'HEAD')).stdout.trim();
  const revision: AlembicRevision = {
    revision: '0003',
    downRevisions: ['0002'],
    dependsOn: [],
    branchLabels: [],
    file: 'migrations/versions/0003.py',
    sha256: '',
    doc: '',
    transactional: 'yes',
    outsideTransaction: 'nothing',
    downgradeTransactional: 'yes',
    downgrade: 'present',
    operations: ['execute'],
  };
  const graph: GraphEvidence = {
    startRevisions: ['0002'],
    targetRevision: '0003',
    targetRevisions: ['0003'],
    path: [revision],
    downgrade: { kind: 'planned', commands: ['0002'] },
    risks: [],
    unknown: [],
  };
  const { prepare: _prepare, ...repository } = service.profile.repository;
  const { boot, flows } = service.profile.application;
  const { administrator, migrator } = service.profile.databases.production;
  return {
    ...service.input,
    run: { ...service.input.run, commit },
    profile: {
      ...service.profile,
      repository: { ...repository, url: root },
      databases: { ...service.profile.databases, staging: { administrator, migrator } },
      application: { boot: { ...boot, environment: {} }, flows },
      alembic: {
        ...service.profile.alembic,
        python: stack.venv.python,
        config: 'alembic.ini',
        directory: '.',
        urlVariable: 'DATABASE_URL',
        urlScheme: 'postgresql+psycopg',
        environment: {},
        commands: {},
      },
      staging: { ...service.profile.staging, environmentFile: join(folder, 'staging.env') },
      lint: { program: join(stack.venv.bin, 'squawk'), refuse: [], exclude: [] },
      rehearsal: { ...service.profile.rehearsal, environment: {}, smoke: [] },
      ...profile,
    },
    graph,
    restore,
  };
}

const trial = (input: RehearsalTrialInput) =>
  asActivity(() => rehearseMigration(deps)(input), 'dry-run.rehearsal/trial');

const ADD = 'ALTER TABLE public.users ADD COLUMN priority int';
const DROP = 'ALTER TABLE public.users DROP COLUMN priority';

describe('the trial of a migration', () => {
  test('leaves its evidence in the archive and no copy on the scratch server, and can be repeated', async () => {
    const input = await inputFor(ADD, DROP);
    await trial(input);
    const found = await trial(input);
    expect(found).toMatchObject({
      verdict: { kind: 'lossless' },
      deployed: { kind: 'not-tried' },
      downgrade: { commands: ['downgrade 0002'] },
      dropped: [{ table: 'public.users', column: 'priority', rows: 0 }],
      schemaChange: { added: ['column public.users.priority'], removed: [] },
    });
    expect(found.unknown).toContainEqual(expect.stringContaining('whether the deployed release works'));
    await withRunStore(secrets, input, never(), async (store) => {
      const footprint = JSON.parse(await readStoredText(store, found.upgrade.document, never())) as ArchivedFootprint;
      expect(footprint.locks).toContainEqual(
        expect.objectContaining({ relation: 'public.users', mode: 'AccessExclusiveLock', revision: '0003' }),
      );
      const [before, after] = await Promise.all(
        [found.mapBefore, found.mapAfter].map(async (map) => parseObjectMap(await readStoredText(store, map, never()))),
      );
      expect(after!.objects.length).toBe(before!.objects.length + 1);
      expect(await readStoredText(store, found.log, never())).toContain(
        '$ alembic upgrade 0003 (upgrade after the downgrade)',
      );
    });
    expect((await service.left()).filter((name) => name.endsWith('_trial'))).toEqual([]);
  });

  test('refuses an upgrade that fails, by revision and cause', async () => {
    const input = await inputFor('ALTER TABLE public.users ADD CONSTRAINT never CHECK (false)', 'SELECT 1');
    await expect(trial(input)).rejects.toMatchObject({
      type: 'CheckFailed',
      message: expect.stringMatching(/the upgrade fails at revision 0003 on a copy of the backup.*constraint "never"/),
    });
  });

  test('names what the migration was not given, where the upgrade fails without it', async () => {
    const input = await inputFor('SELECT never()', 'SELECT 1');
    const { environment: _none, ...rehearsal } = input.profile.rehearsal;
    await writeFile(join(folder, 'queue'), 'amqp://queue.example');
    const queue = { secret: { kind: 'file', path: join(folder, 'queue') } } as const;
    const alembic = {
      ...input.profile.alembic,
      environment: { QUEUE_URL: queue, BILLING: 'postgresql://b@b/billing' },
    };
    await expect(trial({ ...input, profile: { ...input.profile, alembic, rehearsal } })).rejects.toMatchObject({
      type: 'CheckFailed',
      message: expect.stringMatching(
        /fails at revision 0003 .*and production may: .*QUEUE_URL: .*rehearsal\.environment.*BILLING: .*Mend the profile or the release/s,
      ),
    });
  });

  test('refuses SQL of a class that the profile names', async () => {
    const lint = { program: join(stack.venv.bin, 'squawk'), refuse: ['ban-drop-column'], exclude: [] };
    await expect(trial(await inputFor(ADD, DROP, { lint }))).resolves.toMatchObject({ verdict: { kind: 'lossless' } });
    const input = await inputFor('ALTER TABLE public.notes DROP COLUMN body', 'SELECT 1', { lint });
    await expect(trial(input)).rejects.toMatchObject({
      type: 'CheckFailed',
      message: expect.stringMatching(/refused by lint.refuse of the profile: ban-drop-column, revision 0003/),
    });
  });
});

/** The last: what it does to production is not undone. */
describe('production changed as the trial changed its copy', () => {
  const MIGRATION = [
    'CREATE TABLE public.exports (id int)',
    'GRANT SELECT ON public.exports TO PUBLIC',
    'CREATE FUNCTION public.one() RETURNS int LANGUAGE sql AS $$SELECT 1$$',
    'REVOKE EXECUTE ON FUNCTION public.one() FROM PUBLIC',
    'ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC',
  ].join('; ');
  test('owners and grants included; what is not as rehearsed is named', async () => {
    const input = await inputFor(MIGRATION, 'SELECT 1');
    const { inspectProduction } = createAccessActivities(deps);
    const { validateSchema } = createSchemaActivities(deps);
    const { mapBefore, mapAfter, imitated, schemaChange } = await trial(input);
    expect(imitated).toMatchObject({ role: production.roles.migrator, differences: [] });
    expect(schemaChange.added).toContain('ownership table public.exports');
    expect(JSON.stringify(schemaChange)).not.toContain(imitated.login);
    const before = await asActivity(() => inspectProduction(input));
    const validate = (changes: Partial<ImitatedLogin> = {}): Promise<SchemaValidation> =>
      asActivity(() =>
        validateSchema({
          ...input,
          profile: { ...input.profile, schema: [] },
          before,
          rehearsed: { mapBefore, mapAfter, imitated: { ...imitated, ...changes } },
        }),
      );
    await execute(
      production.migratorUrl,
      ...MIGRATION.split('; '),
      `UPDATE public.alembic_version SET version_num = '0003'`,
    );
    const found = await validate();
    expect(found).toMatchObject({ versionRows: ['0003'], notCompared: [] });
    // The table, its column, its owner and grants, those of the function, and what is granted on tables to come.
    expect(found.changes).toBe(8);

    await execute(
      production.superuserUrl,
      'GRANT INSERT ON public.exports TO PUBLIC',
      'ALTER FUNCTION public.one() OWNER TO postgres',
    );
    await expect(validate()).rejects.toMatchObject({
      type: 'CheckFailed',
      message: expect.stringMatching(
        /grants table public\.exports: added in production to PUBLIC=INSERT, SELECT.*, in the rehearsal to PUBLIC=SELECT.*ownership function public\.one\(\): added in production to postgres, in the rehearsal to/,
      ),
    });
    const doubtful = await validate({ differences: ['role "migrator" is SUPERUSER in production'] });
    expect(doubtful.notCompared.join('\n')).toMatch(
      /ownership function public\.one\(\): .*nobody can tell whether it should: .*SUPERUSER/,
    );
  });
});

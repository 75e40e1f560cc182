import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { secretAccess } from '../../src/activities/integration-context.ts';
import type { ConfiguredValue, Profile, SecretReference } from '../../src/contract/profile.ts';
import { parseProfile } from '../../src/profile/load.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { rehearsalEnvironment, withheldText } from '../../src/rehearsal/environment.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const template = await readFile(new URL('../../config/profile-template.yaml', import.meta.url), 'utf8');
const target = {
  host: 'scratch.example',
  port: 5432,
  database: 'copy',
  user: 'login',
  password: 'word',
  sslmode: 'prefer',
} as const;
const COPY = '://login:word@scratch.example:5432/copy';
const PRODUCTION = '://migrator:prodWord@db.prod.example:5432/whisper';

let folder: string;
beforeAll(async () => {
  folder = await temporaryDirectory('environment');
  await mkdir(join(folder, 'profiles'));
  await writeFile(join(folder, 'staging.env'), 'APP_ENV=staging\n');
});

async function secret(name: string, value: string): Promise<SecretReference> {
  await writeFile(join(folder, name), value);
  return { kind: 'file', path: join(folder, name) };
}

async function environmentOf(
  environment: Readonly<Record<string, ConfiguredValue>>,
  own?: Readonly<Record<string, ConfiguredValue>>,
) {
  const { profile: base } = parseProfile(template, join(folder, 'profiles'), 'whisper-transcriber.yaml');
  const { environment: _none, ...rehearsal } = base.rehearsal;
  const production = await secret('production', `postgresql${PRODUCTION}`);
  const staging = await secret('staging', 'postgresql://migrator:stageWord@db.stage.example/whisper');
  const roles = { migrator: production, administrator: production, backup: production, application: production };
  const profile: Profile = {
    ...base,
    databases: {
      ...base.databases,
      production: { ...base.databases.production, ...roles },
      staging: { ...base.databases.staging, migrator: staging, administrator: staging },
    },
    alembic: { ...base.alembic, urlVariable: 'DATABASE_URL', urlScheme: 'postgresql+asyncpg', environment },
    staging: { ...base.staging, environmentFile: join(folder, 'staging.env') },
    application: { ...base.application, boot: { ...base.application.boot, environment: {} } },
    rehearsal: own === undefined ? rehearsal : { ...rehearsal, environment: own },
  };
  const access = secretAccess({ secrets: createSecretVault() }, { profile }, new AbortController().signal);
  return rehearsalEnvironment(profile, '/checkout', target, access);
}

describe('what the trial’s Alembic is given', () => {
  test('leads to the copy where it named production’s database, in each driver’s form', async () => {
    const { migration, shared } = await environmentOf({
      SYNC_URL: `postgresql+psycopg2${PRODUCTION}`,
      PLAIN: `postgres${PRODUCTION}`,
    });
    expect(migration).toMatchObject({
      DATABASE_URL: `postgresql+asyncpg${COPY}`,
      SYNC_URL: `postgresql+psycopg2${COPY}`,
      PLAIN: `postgresql${COPY}`,
    });
    expect(shared).toEqual(['SYNC_URL', 'PLAIN']);
  });

  test('leads to no other database server, whatever the variable is called and however the address is written', async () => {
    const leading = {
      BILLING_URL: 'postgresql://billing:x@db.prod.example/billing',
      ELSEWHERE: 'postgresql+psycopg://billing@billing.example/whisper',
      STAGING: 'postgresql://migrator:stageWord@db.stage.example/whisper',
      PGHOST: 'db.prod.example',
      PGSERVICE: 'production',
      DB_HOST: 'db.prod.example',
      DB_ADDRESS: 'DB.prod.example:6432',
      SETTINGS: '{"host": "db.stage.example"}',
      DB_PASSWORD: 'prodWord',
      DSN: 'host=db user=billing password=x',
      NET: 'Host=db;Database=billing;Username=x',
      JDBC: 'jdbc:postgresql://billing.example/billing',
      DJANGO: 'postgis://billing.example/billing',
    };
    const harmless = {
      REDIS_URL: 'redis://db.prod.example:6379/0',
      CACHE: 'redis://cache.db.prod.example',
      DB_NAME: 'whisper',
      OTEL_RESOURCE_ATTRIBUTES: 'service.name=whisper,host.name=one',
    };
    for (const environment of [
      await environmentOf({ ...leading, ...harmless }),
      await environmentOf({}, { ...leading, ...harmless }),
    ]) {
      expect(environment.withheldFromMigration).toEqual({ addresses: Object.keys(leading), secrets: [] });
      expect(Object.keys(environment.migration).toSorted()).toEqual(
        ['DATABASE_URL', 'PATH', 'PGSSLMODE', ...Object.keys(harmless)].toSorted(),
      );
      expect(withheldText(environment)).toEqual([
        expect.stringMatching(/BILLING_URL.*DJANGO: kept from the rehearsal.*not the copy’s/),
      ]);
    }
  });

  test('is no secret of production’s: these are named, with what to do', async () => {
    const queue = await secret('queue', 'amqp://queue.prod.example');
    const missing: SecretReference = { kind: 'file', path: join(folder, 'there is none') };
    const environment = await environmentOf({
      QUEUE_URL: { secret: queue },
      API_KEY: { secret: missing },
      MEDIA: '/srv',
      DATABASE_URL: { secret: queue },
    });
    expect(environment.withheldFromMigration).toEqual({ addresses: [], secrets: ['QUEUE_URL', 'API_KEY'] });
    expect(environment.shared).toEqual(['MEDIA']);
    expect(environment.migration).not.toHaveProperty('QUEUE_URL');
    expect(withheldText(environment)).toEqual([
      expect.stringMatching(/QUEUE_URL, API_KEY: .*give others in rehearsal\.environment/),
    ]);
  });

  test('is what the rehearsal has of its own, secrets included', async () => {
    const queue = await secret('queue', 'amqp://queue.prod.example');
    const own = await secret('own', 'amqp://queue.scratch.example');
    const { migration, withheldFromMigration, shared } = await environmentOf(
      { QUEUE_URL: { secret: queue } },
      { QUEUE_URL: { secret: own } },
    );
    expect(migration).toMatchObject({ QUEUE_URL: 'amqp://queue.scratch.example' });
    expect(withheldFromMigration).toEqual({ addresses: [], secrets: [] });
    expect(shared).toEqual([]);
  });
});

test('an application’s other addresses lead to the copy too: without its replica’s it would not boot', async () => {
  const { application } = await environmentOf({}, { REPLICA_URL: 'postgresql://reader@replica.example/whisper' });
  expect(application).toMatchObject({ APP_ENV: 'staging', REPLICA_URL: `postgresql${COPY}` });
});

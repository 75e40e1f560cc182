import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { type ObjectStore, openObjectStore } from '../../src/archive/object-store.ts';
import type { BackupRequest } from '../../src/archive/dump.ts';
import type { StoredBackup } from '../../src/archive/stored-backup.ts';
import { findPrograms, type PostgresPrograms } from '../../src/archive/programs.ts';
import type { VerificationRequest } from '../../src/archive/verify.ts';
import { Redactor } from '../../src/process/redactor.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { createDatabase, createRole, databaseUrl, randomName, useStack } from '../stack.ts';

export const redactor = new Redactor([]);
export const never = (): AbortSignal => new AbortController().signal;

export function openTestStore(
  change: { readonly bucket?: string; readonly endpoint?: string; readonly secretAccessKey?: string } = {},
): ObjectStore {
  const { s3 } = useStack();
  return openObjectStore(
    {
      bucket: change.bucket ?? s3.bucket,
      region: s3.region,
      endpoint: change.endpoint ?? s3.endpoint,
      forcePathStyle: true,
    },
    { accessKeyId: s3.accessKeyId, secretAccessKey: change.secretAccessKey ?? s3.secretAccessKey },
  );
}

/** Keys for one test file: both halves of an age key pair. */
export async function createKeys(): Promise<{ readonly identity: string; readonly recipient: string }> {
  const identity = await generateX25519Identity();
  return { identity, recipient: await identityToRecipient(identity) };
}

const SCHEMA = `
  CREATE SCHEMA "Odd Schema";
  CREATE TYPE mood AS ENUM ('calm', 'busy');
  CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
  INSERT INTO alembic_version VALUES ('a1b2c3');
  CREATE TABLE customer (id bigserial PRIMARY KEY, name text NOT NULL, note text, state mood DEFAULT 'calm');
  CREATE TABLE "Odd Schema"."user ""list""" (id int PRIMARY KEY, "Full Name" text);
  CREATE TABLE empty_table (id int);
  CREATE TABLE measurement (day date, value int) PARTITION BY RANGE (day);
  CREATE TABLE measurement_2026 PARTITION OF measurement FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
  CREATE VIEW busy AS SELECT id FROM customer WHERE state = 'busy';
  CREATE FUNCTION looks_like_data() RETURNS text LANGUAGE sql AS $$
SELECT '
COPY public.customer (id, name, note, state) FROM stdin;
1	x	y	calm
' $$;
  INSERT INTO customer (name, note) SELECT 'name ' || n, E'line one\\nline two\\t\\\\. ' || n FROM generate_series(1, 5000) n;
  INSERT INTO "Odd Schema"."user ""list""" SELECT n, E'\\\\.' FROM generate_series(1, 40) n;
  SELECT lo_create(1000), lo_from_bytea(1001, '\x0a0b'), lo_from_bytea(1002, decode(repeat('ab', 50000), 'hex'));
  INSERT INTO measurement SELECT date '2026-01-01' + n % 365, n FROM generate_series(1, 700) n;
`;

export interface BackupSource {
  readonly database: string;
  /** Superuser. */
  readonly url: string;
  readonly role: { readonly name: string; readonly password: string };
  readonly store: ObjectStore;
  readonly programs: PostgresPrograms;
  readonly identity: string;
  /** A complete request for a backup of this database in an object folder of its own. */
  request(change?: Partial<BackupRequest>): BackupRequest;
  verification(backup: StoredBackup, change?: Partial<VerificationRequest>): VerificationRequest;
}

/** A database with ordinary and odd names, a role that may only read, and everything a backup of it needs. */
export async function createBackupSource(): Promise<BackupSource> {
  const { primary } = useStack().postgres;
  const { name: database, url } = await createDatabase(primary, 'archive');
  const role = await createRole(primary, 'archive_reader', 'BYPASSRLS');
  await withClient(url, async (client) => {
    await client.query(SCHEMA);
    await client.query(`GRANT pg_read_all_data TO ${client.escapeIdentifier(role.name)}`);
    for (const oid of [1000, 1001, 1002])
      await client.query(`GRANT SELECT ON LARGE OBJECT ${oid} TO ${client.escapeIdentifier(role.name)}`);
  });
  const store = openTestStore();
  const programs = await findPrograms(
    { home: '/', postgresPrograms: primary.binDirectory },
    { signal: never(), redactor },
  );
  const { identity, recipient } = await createKeys();
  const run = { runId: randomName('run'), service: 'service', releaseTag: 'v1.0.0', changeTicket: 'CHG-1' };
  const folder = `${randomName('archive')}/${run.service}/${run.runId}`;
  return {
    database,
    url,
    role,
    store,
    programs,
    identity,
    request: (change = {}) => ({
      url: databaseUrl(primary, database, role),
      versionTable: { schema: 'public', table: 'alembic_version' },
      pgDump: programs.pg_dump,
      store,
      folder,
      run,
      step: 'backup.capture',
      recipients: [recipient],
      redactor,
      signal: never(),
      progress: () => undefined,
      ...change,
    }),
    verification: (backup, change = {}) => ({
      store,
      backup,
      identity,
      pgRestore: programs.pg_restore,
      redactor,
      signal: never(),
      progress: () => undefined,
      ...change,
    }),
  };
}

/** Rows whose dump does not compress to less than three parts of an upload. */
export async function fillWithBulk(source: BackupSource): Promise<void> {
  await withClient(source.url, (client) =>
    client.query(
      `CREATE TABLE bulk AS SELECT n, md5(random()::text) || md5(random()::text) || md5(random()::text) || md5(random()::text) AS t
       FROM generate_series(1, 450000) n`,
    ),
  );
}

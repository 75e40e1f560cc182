/** One database a row: backed up, migrated, brought back by us and, beside it, by `pg_restore --clean --if-exists`. */
import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import type { ProofCase } from '../../scripts/proof.ts';
import { stackRoot } from '../../scripts/stack/layout.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { startStack } from '../../scripts/stack/stack.ts';
import { runFolder } from '../../src/archive/backup-names.ts';
import { captureDump } from '../../src/archive/dump.ts';
import type { Ledger } from '../../src/archive/ledger.ts';
import { type ObjectStore, openObjectStore } from '../../src/archive/object-store.ts';
import { findPrograms, type PostgresPrograms } from '../../src/archive/programs.ts';
import { fetchLedger, openBackup, type StoredBackup } from '../../src/archive/stored-backup.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { compareContents, readContents } from '../../src/postgres/contents/contents.ts';
import {
  carryProperties,
  commentStatement,
  compareProperties,
  readDatabaseProperties,
} from '../../src/postgres/catalog/database-properties.ts';
import { sqlName } from '../../src/postgres/identifier.ts';
import { captureObjectMap } from '../../src/postgres/catalog/object-map.ts';
import { compareForRestore } from '../../src/postgres/catalog/object-map-restore.ts';
import { restoreFresh } from '../../src/postgres/restore/restore.ts';
import { swapDatabases } from '../../src/postgres/swap/swap.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { differences, type Place, runProgram, schemaOf, takePicture, urlOf } from './matrix/picture.ts';
import { MATRIX, type MatrixRow, ROLES } from './matrix/rows.ts';

export const sentence = `restores of ${MATRIX.length} kinds of databases after a migration: equal to the backup, by ledger and by pg_dump; beside them the plain pg_restore --clean`;

/** Rows at work at a time. */
const LANES = 2;

interface World extends Place {
  readonly url: (role: keyof typeof ROLES, database: string) => string;
  readonly store: ObjectStore;
  readonly programs: PostgresPrograms;
  readonly identity: string;
  readonly recipient: string;
}

interface Outcome {
  readonly row: string;
  /** What differs after our restore and swap; empty = equal to the backup. */
  readonly ours: readonly string[];
  /** Null where it did not come to that. */
  readonly document: readonly string[] | null;
  /** The damage was done, and both ways of looking have seen it: without that, equal would mean nothing. */
  readonly seen: { readonly byPicture: number; readonly byLedger: number };
}

const signal = new AbortController().signal;

export const run = async (say: (line: string) => void): Promise<readonly ProofCase[]> => {
  const directory = join(stackRoot, `proof-restore-matrix-${randomBytes(4).toString('hex')}`);
  const stack = await startStack({ directory, parts: ['primary', 's3'], onProgress: say });
  const { primary } = stack.postgres;
  try {
    if (!primary || !stack.s3) throw new Error('the proof needs the primary and the object store');
    const { s3 } = stack;
    const store = openObjectStore(
      { bucket: s3.bucket, region: s3.region, endpoint: s3.endpoint, forcePathStyle: true },
      s3,
    );
    const identity = await generateX25519Identity();
    const world: World = {
      server: primary,
      directory,
      url: await createRoles({ server: primary, directory }),
      store,
      programs: await findPrograms({ home: '/', postgresPrograms: primary.binDirectory }, { signal, redactor }),
      identity,
      recipient: await identityToRecipient(identity),
    };
    const outcomes: Outcome[] = [];
    const waiting = MATRIX.entries();
    const lane = async (): Promise<void> => {
      for (const [index, row] of waiting) {
        const outcome = await restoreRow(world, row, index).catch(
          (error: unknown): Outcome => ({
            row: row.name,
            ours: [error instanceof Error ? error.message : String(error)],
            document: null,
            seen: { byPicture: 0, byLedger: 0 },
          }),
        );
        outcomes[index] = outcome;
        say(`${row.name}: ours ${said(outcome.ours)}; pg_restore --clean ${said(outcome.document)}`);
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    store.close();
    return [...outcomes.map(caseOf), summary(outcomes)];
  } finally {
    await stack.stop();
    await rm(directory, { recursive: true, force: true });
  }
};

const isRight = ({ ours, seen }: Outcome): boolean => ours.length === 0 && seen.byPicture > 0 && seen.byLedger > 0;

const caseOf = (outcome: Outcome): ProofCase => ({
  name: outcome.row,
  passed: isRight(outcome),
  detail: `ours ${said(outcome.ours)} | pg_restore --clean ${said(outcome.document)} | the migration made ${outcome.seen.byPicture} differences, ${outcome.seen.byLedger} by ledger`,
});

const summary = (outcomes: readonly Outcome[]): ProofCase => ({
  name: 'equal to the backup',
  passed: outcomes.every(isRight),
  detail: `ours ${outcomes.filter(({ ours }) => ours.length === 0).length} of ${outcomes.length}, pg_restore --clean --if-exists ${outcomes.filter(({ document }) => document?.length === 0).length} of ${outcomes.length}`,
});

const said = (found: readonly string[] | null): string =>
  found === null
    ? 'not tried'
    : found.length === 0
      ? 'equal'
      : `DIFFERS (${found.length}): ${found.slice(0, 3).join('; ').slice(0, 240)}${found.length > 3 ? '; ...' : ''}`;

// ---- one row ----------------------------------------------------------------------------------------------------------

async function restoreRow(world: World, row: MatrixRow, index: number): Promise<Outcome> {
  const database = row.database ?? `matrix_${index + 1}`;
  await withClient(world.server.superuserUrl, async (client) => {
    await client.query(`CREATE DATABASE ${sqlName(database)} OWNER ${ROLES.owner} TEMPLATE template0`);
    await client.query(`REVOKE CONNECT ON DATABASE ${sqlName(database)} FROM PUBLIC`);
    await client.query(`GRANT CONNECT ON DATABASE ${sqlName(database)} TO ${ROLES.migrator}, ${ROLES.backup}`);
    await client.query(`COMMENT ON DATABASE ${sqlName(database)} IS 'of the matrix'`);
  });
  await perform(world, row, database, row.before);
  const before = await takePicture(world, database);
  const backup = await backUp(world, database, runIdOf(index));
  const ledger = await fetchLedger(world.store, backup, world.identity, signal);
  const dump = await dumpInFile(world, backup, index);
  const rewritten = await schemaOnceRestored(world, database, dump, index);

  await perform(world, row, database, row.migration);
  const seen = {
    byPicture: differences(before, rewritten, await takePicture(world, database)).length,
    byLedger: (await comparedByLedger(world, database, ledger)).length,
  };
  const document = await restoredByDocument(world, database, dump, index);
  const documentDiffers = differences(before, rewritten, await takePicture(world, document));
  await dropDatabase(world, document);

  await restoreAndSwap(world, row, database, { backup, ledger }, index);
  const ours = [
    ...differences(before, rewritten, await takePicture(world, database)),
    ...(await comparedByLedger(world, database, ledger)).map((finding) => `by ledger: ${finding}`),
  ];
  await rm(dump, { force: true });
  return { row: row.name, ours, document: documentDiffers, seen };
}

/** Statements one by one, as a migration's. */
async function perform(world: World, row: MatrixRow, database: string, statements: readonly string[]): Promise<void> {
  const as = row.as ?? 'migrator';
  const url = as === 'superuser' ? urlOf(world, database) : world.url(as, database);
  await withClient(url, async (client) => {
    for (const statement of statements) await client.query(statement.replaceAll('{database}', sqlName(database)));
  });
}

async function backUp(
  { url, store, programs, recipient }: World,
  database: string,
  runId: string,
): Promise<StoredBackup> {
  return captureDump({
    url: url('backup', database),
    versionTable: { schema: 'public', table: 'alembic_version' },
    pgDump: programs.pg_dump,
    store,
    folder: runFolder({ prefix: 'matrix' }, { service: 'matrix', runId }),
    run: { runId, service: 'matrix', releaseTag: 'v1', changeTicket: 'CHG-1' },
    step: 'backup.capture',
    recipients: [recipient],
    redactor,
    signal,
    progress: () => undefined,
  });
}

/** The very same dump for everybody. */
async function dumpInFile({ directory, store, identity }: World, backup: StoredBackup, index: number): Promise<string> {
  const file = join(directory, `${index}.dump`);
  await pipeline(openBackup({ store, backup, identity, signal }), createWriteStream(file, { mode: 0o600 }));
  return file;
}

/** Definitions as PostgreSQL writes them after one dump and restore into a database that holds nothing else. */
async function schemaOnceRestored(
  world: World,
  database: string,
  dump: string,
  index: number,
): Promise<Map<string, string>> {
  const plain = `plain_${index + 1}`;
  await withClient(world.server.superuserUrl, (client) =>
    client.query(`CREATE DATABASE ${plain} OWNER ${ROLES.owner} TEMPLATE template0`),
  );
  const sections = ['--section=pre-data', '--section=post-data'];
  await runProgram(world, 'pg_restore', plain, [...sections, '--exit-on-error', `--dbname=${plain}`, dump]);
  const schema = await schemaOf(world, plain);
  await dropDatabase(world, plain);
  return new Map([...schema].map(([title, text]) => [title, text.replaceAll(plain, database)]));
}

async function comparedByLedger({ url, server }: World, database: string, ledger: Ledger): Promise<string[]> {
  // As superuser, for the administrator may not read what a migration has left behind for others.
  const superuser = new URL(url('administrator', database));
  const { username, password } = new URL(server.superuserUrl);
  Object.assign(superuser, { username, password });
  return withConnection(superuser.href, { runId: RUN, step: 'matrix', signal }, async (client) => [
    ...compareContents(ledger.contents, await readContents([client], { sampleAbove: Infinity, like: ledger.contents })),
    ...compareForRestore(ledger.objectMap, await captureObjectMap(client)).different,
    ...compareProperties(ledger.properties, await readDatabaseProperties(client, database)),
  ]);
}

/** `pg_restore --clean --if-exists` into a copy of the migrated database. As superuser: it fails for no want of rights. */
async function restoredByDocument(world: World, database: string, dump: string, index: number): Promise<string> {
  const copy = `document_${index + 1}`;
  await withClient(world.server.superuserUrl, async (client) => {
    await client.query(`CREATE DATABASE ${copy} OWNER ${ROLES.owner} TEMPLATE ${sqlName(database)} STRATEGY file_copy`);
    await carryProperties(client, database, copy);
    await client.query(await commentStatement(client, database, copy));
  });
  // It goes on after errors and then ends with code 1: that is how the command was meant to be used.
  await runProgram(world, 'pg_restore', copy, ['--clean', '--if-exists', `--dbname=${copy}`, dump]).catch(
    () => undefined,
  );
  return copy;
}

async function restoreAndSwap(
  world: World,
  row: MatrixRow,
  database: string,
  { backup, ledger }: { readonly backup: StoredBackup; readonly ledger: Ledger },
  index: number,
): Promise<void> {
  const { url, store, identity, programs } = world;
  // What only a superuser can create, only a superuser can restore.
  const administrator = row.as === 'superuser' ? urlOf(world, database) : url('administrator', database);
  const runId = runIdOf(index);
  const { freshDatabase } = await restoreFresh({
    url: administrator,
    maintenanceDatabase: 'postgres',
    runId,
    step: 'recovery.restore',
    ledger,
    openBackup: () => openBackup({ store, backup, identity, signal }),
    dumpBytes: backup.dumpBytes,
    jobs: 2,
    pgRestore: programs.pg_restore,
    mark: { service: 'matrix', workflowId: 'migrate-matrix', expiresAt: '2099-01-01T00:00:00.000Z' },
    standbys: [],
    room: { capacity: { kind: 'waiver', reason: 'a few megabytes' }, freeBytes: async () => '' },
    redactor,
    signal,
    progress: () => undefined,
  });
  await swapDatabases({
    url: administrator,
    maintenanceDatabase: 'postgres',
    fresh: freshDatabase,
    runId,
    service: 'matrix',
    workflowId: 'migrate-matrix',
    quarantine: 3_600_000,
    step: 'recovery.restore/swap',
    carry: 'fence',
    standbys: [],
    signal,
    progress: () => undefined,
  });
}

// ---- parts ------------------------------------------------------------------------------------------------------------

const RUN = '0190f000-0000-7000-8000-000000000000';
const runIdOf = (index: number): string => `0190f000-0000-7000-8000-${String(index + 1).padStart(12, '0')}`;
const redactor = createRedactor([]);

const dropDatabase = ({ server }: World, name: string): Promise<unknown> =>
  withClient(server.superuserUrl, (client) => client.query(`DROP DATABASE ${sqlName(name)} WITH (FORCE)`));

/** Roles with the rights the runbook asks for; the administrator is no superuser. */
async function createRoles({ server }: Place): Promise<World['url']> {
  const passwords = new Map(Object.keys(ROLES).map((role) => [role, randomBytes(12).toString('hex')]));
  const { owner, migrator, backup, administrator, application, reports } = ROLES;
  await withClient(server.superuserUrl, async (client) => {
    for (const [role, name] of Object.entries(ROLES)) {
      const rights = role === 'administrator' ? 'CREATEDB CREATEROLE' : role === 'backup' ? 'BYPASSRLS' : '';
      await client.query(`CREATE ROLE ${name} LOGIN PASSWORD '${passwords.get(role)}' ${rights}`);
    }
    await client.query(`GRANT ${owner} TO ${migrator}, ${administrator}`);
    await client.query(`ALTER ROLE ${migrator} SET role = ${owner}`);
    await client.query(`GRANT pg_read_all_data TO ${backup}, ${administrator}`);
    await client.query(`GRANT pg_monitor, pg_signal_backend, pg_maintain TO ${administrator}`);
    await client.query(
      `GRANT ${application}, ${reports}, ${migrator}, ${backup} TO ${administrator} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`,
    );
  });
  return (role, database) => {
    const url = new URL(server.superuserUrl);
    url.username = ROLES[role];
    url.password = passwords.get(role)!;
    url.pathname = `/${encodeURIComponent(database)}`;
    return url.href;
  };
}

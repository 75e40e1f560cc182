/** A backup brought back and compared with its ledger, against the document's own way, which compares nothing. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import type { BenchMeasure } from '../../scripts/bench.ts';
import { runCommand } from '../../scripts/stack/command.ts';
import type { PostgresServer, S3Server } from '../../scripts/stack/connection.ts';
import { programs, stackRoot } from '../../scripts/stack/layout.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { startStack } from '../../scripts/stack/stack.ts';
import { captureDump } from '../../src/archive/dump.ts';
import { type ObjectStore, openObjectStore } from '../../src/archive/object-store.ts';
import { findPrograms, type PostgresPrograms } from '../../src/archive/programs.ts';
import { fetchLedger, openBackup } from '../../src/archive/stored-backup.ts';
import type { BackupEvidence } from '../../src/contract/evidence/backup.ts';
import type { RestoreEvidence } from '../../src/contract/evidence/restore.ts';
import { restoreFresh } from '../../src/postgres/restore/restore.ts';
import { createRedactor } from '../../src/process/redactor.ts';

export const sentence =
  'restore and comparison from the stored object against download and serial pg_restore, 1.4 GB database';

const TARGET = 0.95;
const PAIRS = 2;
const SMALLEST = 1_300_000_000;
const DATABASE = 'shop';
const FRESH_BY_HAND = 'shop_by_hand';
const DUMP_BY_HAND = 'by-hand/shop.dump';
const JOBS = 2;

/** Seven million rows, eight indexes, two foreign keys. */
const CONTENTS = [
  `CREATE TABLE accounts (id bigint PRIMARY KEY, email text NOT NULL, created timestamptz NOT NULL, note text)`,
  `CREATE TABLE orders (id bigint PRIMARY KEY, account_id bigint NOT NULL, placed timestamptz NOT NULL, amount numeric(12,2), state text, reference text)`,
  `CREATE TABLE events (id bigint PRIMARY KEY, order_id bigint NOT NULL, at timestamptz NOT NULL, kind text, payload text)`,
  `INSERT INTO accounts SELECT g, md5(g::text) || '@example.com', timestamptz '2026-01-01' + g * interval '1 second', repeat(md5((g * 7)::text), 2)
   FROM generate_series(1, 1000000) g`,
  `INSERT INTO orders SELECT g, 1 + g % 1000000, timestamptz '2026-01-01' + g * interval '1 second', (g::bigint * 7919 % 1000000)::numeric / 100,
     (ARRAY['new', 'paid', 'sent'])[1 + g % 3], md5(g::text)
   FROM generate_series(1, 3000000) g`,
  `INSERT INTO events SELECT g, 1 + g % 3000000, timestamptz '2026-01-01' + g * interval '1 second', (ARRAY['a', 'b', 'c', 'd'])[1 + g % 4],
     md5((g * 3)::text) || md5((g * 5)::text)
   FROM generate_series(1, 3000000) g`,
  'CREATE UNIQUE INDEX ON accounts (email)',
  'CREATE INDEX ON orders (account_id)',
  'CREATE INDEX ON orders (reference)',
  'CREATE INDEX ON events (order_id)',
  'CREATE INDEX ON events (at)',
  'ALTER TABLE orders ADD FOREIGN KEY (account_id) REFERENCES accounts',
  'ALTER TABLE events ADD FOREIGN KEY (order_id) REFERENCES orders',
  'VACUUM ANALYZE',
];

interface World {
  readonly server: PostgresServer;
  readonly s3: S3Server;
  readonly store: ObjectStore;
  readonly programs: PostgresPrograms;
  readonly identity: string;
  readonly backup: BackupEvidence;
  /** Folder for what the document's way downloads. */
  readonly folder: string;
}

const redactor = createRedactor([]);
const never = new AbortController().signal;

export async function run(say: (line: string) => void): Promise<readonly BenchMeasure[]> {
  const directory = path.join(stackRoot, 'bench-restore');
  const stack = await startStack({ directory, parts: ['primary', 's3'], data: 'fresh' });
  const folder = await mkdtemp(path.join(tmpdir(), 'bench-restore-'));
  try {
    const { primary } = stack.postgres;
    if (primary === undefined || stack.s3 === undefined) throw new Error('the bench needs the primary and S3');
    const world = await prepare({ server: primary, s3: stack.s3, folder }, say);
    const ratios: number[] = [];
    for (let pair = 1; pair <= PAIRS; pair += 1) {
      // In turn, so that what else the machine does meets both.
      const byHand = await timed(world, () => restoreByHand(world));
      const ours = await timed(world, () => restoreAndCompare(world));
      const { timings, rows } = ours.result;
      const rest = ours.seconds - (timings.data + timings.indexes + timings.compare) / 1000;
      say(
        `pair ${pair}: by hand ${seconds(byHand.seconds)} (download ${seconds(byHand.result)}); restored and compared ${seconds(ours.seconds)}: rows ${seconds(timings.data / 1000)}, indexes ${seconds(timings.indexes / 1000)}, checksums of ${rows} rows, object map and ANALYZE ${seconds(timings.compare / 1000)}, rest ${seconds(rest)}`,
      );
      ratios.push(ours.seconds / byHand.seconds);
    }
    const value = rounded(ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length);
    return [
      {
        measure: 'restored and compared / by hand',
        value,
        target: TARGET,
        met: value <= TARGET,
        runs: ratios.map(rounded),
      },
    ];
  } finally {
    await stack.stop();
    await rm(folder, { recursive: true, force: true });
    await rm(directory, { recursive: true, force: true });
  }
}

/** The database, its backup as the workflow takes it, and beside it the dump as the document takes it. */
async function prepare(world: Pick<World, 'server' | 's3' | 'folder'>, say: (line: string) => void): Promise<World> {
  const { server, s3, folder } = world;
  await onServer(server, `CREATE DATABASE ${DATABASE}`);
  const url = urlOf(server, DATABASE);
  const size = await withClient(url, async (client) => {
    for (const statement of CONTENTS) await client.query(statement);
    const { rows } = await client.query<{ size: string }>('SELECT pg_database_size(current_database()) AS size');
    return Number(rows[0]?.size);
  });
  if (size < SMALLEST) throw new Error(`the database has ${size} bytes, ${SMALLEST} are wanted`);
  say(`database of ${Math.round(size / 1e6)} MB, ${PAIRS} pairs of restores, ${JOBS} jobs`);

  const own = await findPrograms({ home: '/', postgresPrograms: server.binDirectory }, { signal: never, redactor });
  const store = openObjectStore(
    { bucket: s3.bucket, region: s3.region, endpoint: s3.endpoint, forcePathStyle: true },
    { accessKeyId: s3.accessKeyId, secretAccessKey: s3.secretAccessKey },
  );
  const identity = await generateX25519Identity();
  const owner = { service: 'bench', runId: 'bench-restore' };
  const backup = await captureDump({
    url,
    versionTable: { schema: 'public', table: 'alembic_version' },
    pgDump: own.pg_dump,
    store,
    folder: `backups/${owner.service}/${owner.runId}`,
    run: { ...owner, releaseTag: 'v1.0.0', changeTicket: 'CHG-1' },
    step: 'backup.capture',
    recipients: [await identityToRecipient(identity)],
    redactor,
    signal: never,
    progress: () => undefined,
  });
  const file = path.join(folder, 'shop.dump');
  await runCommand(path.join(server.binDirectory, 'pg_dump'), ['-Fc', '-f', file, DATABASE], {
    directory: folder,
    environment: libpq(server),
  });
  await rclone({ s3, folder }, ['copyto', file, `store:${s3.bucket}/${DUMP_BY_HAND}`]);
  await rm(file);
  say(`both backups stored: ${Math.round(backup.bytes / 1e6)} MB by the workflow`);
  return { ...world, store, programs: own, identity, backup };
}

/** @returns seconds of the download */
async function restoreByHand(world: World): Promise<number> {
  const { server, s3, folder } = world;
  const file = path.join(folder, 'shop.dump');
  const began = performance.now();
  await rclone(world, ['copyto', `store:${s3.bucket}/${DUMP_BY_HAND}`, file]);
  const download = (performance.now() - began) / 1000;
  await onServer(server, `CREATE DATABASE ${FRESH_BY_HAND} TEMPLATE template0`);
  await runCommand(path.join(server.binDirectory, 'pg_restore'), ['-d', FRESH_BY_HAND, file], {
    directory: folder,
    environment: libpq(server),
  });
  return download;
}

async function restoreAndCompare({ server, store, backup, identity, programs: own }: World): Promise<RestoreEvidence> {
  const ledger = await fetchLedger(store, backup, identity, never);
  return restoreFresh({
    url: urlOf(server, DATABASE),
    maintenanceDatabase: 'postgres',
    runId: 'bench-restore',
    step: 'recovery.restore',
    ledger,
    openBackup: () => openBackup({ store, backup, identity, signal: never }),
    dumpBytes: backup.dumpBytes,
    jobs: JOBS,
    pgRestore: own.pg_restore,
    mark: { service: 'bench', workflowId: 'bench', expiresAt: new Date(Date.now() + 3_600_000).toISOString() },
    standbys: [],
    room: { capacity: { kind: 'waiver', reason: 'a bench' }, freeBytes: async () => '' },
    redactor,
    signal: never,
    progress: () => undefined,
  });
}

/** Each on a server that has written out what was before, beside production and nothing else. */
async function timed<T>(
  world: World,
  work: () => Promise<T>,
): Promise<{ readonly seconds: number; readonly result: T }> {
  await dropCopies(world.server);
  const began = performance.now();
  const result = await work();
  return { seconds: (performance.now() - began) / 1000, result };
}

async function dropCopies(server: PostgresServer): Promise<void> {
  const copies = await withClient(server.superuserUrl, async (client) => {
    const { rows } = await client.query<{ name: string }>(
      `SELECT datname AS name FROM pg_database WHERE datname <> $1 AND starts_with(datname, $1)`,
      [DATABASE],
    );
    return rows.map(({ name }) => name);
  });
  for (const name of copies) await onServer(server, `DROP DATABASE "${name}"`);
  await onServer(server, 'CHECKPOINT');
}

const onServer = (server: PostgresServer, statement: string): Promise<void> =>
  withClient(server.superuserUrl, async (client) => {
    await client.query(statement);
  });

function urlOf(server: PostgresServer, database: string): string {
  const url = new URL(server.superuserUrl);
  url.pathname = `/${database}`;
  return url.href;
}

function libpq(server: PostgresServer): Record<string, string> {
  const { username, password } = new URL(server.superuserUrl);
  return {
    PGHOST: server.host,
    PGPORT: String(server.port),
    PGUSER: username,
    PGPASSWORD: decodeURIComponent(password),
  };
}

const rclone = ({ s3, folder }: Pick<World, 's3' | 'folder'>, words: readonly string[]): Promise<string> =>
  runCommand(programs.rclone, words, {
    directory: folder,
    environment: {
      RCLONE_CONFIG: '/dev/null',
      RCLONE_CONFIG_STORE_TYPE: 's3',
      RCLONE_CONFIG_STORE_PROVIDER: 'Rclone',
      RCLONE_CONFIG_STORE_ENDPOINT: s3.endpoint,
      RCLONE_CONFIG_STORE_ACCESS_KEY_ID: s3.accessKeyId,
      RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY: s3.secretAccessKey,
    },
  });

const seconds = (value: number): string => `${value.toFixed(1)} s`;
const rounded = (value: number): number => Math.round(value * 1000) / 1000;

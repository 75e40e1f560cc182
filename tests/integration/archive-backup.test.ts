import { Readable } from 'node:stream';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { StepError } from '../../src/contract/errors.ts';
import { canonicalDigest, canonicalJson } from '../../src/archive/canonical.ts';
import { captureDump } from '../../src/archive/dump.ts';
import type { BackupProgress } from '../../src/archive/dump-progress.ts';
import { findManifest, listManifests, recordVerification, requireManifest } from '../../src/archive/manifest.ts';
import { fetchLedger, openBackup } from '../../src/archive/stored-backup.ts';
import { verifyStoredBackup } from '../../src/archive/verify.ts';
import type { ObjectStore } from '../../src/archive/object-store.ts';
import { captureObjectMap, digestOf, withoutTable } from '../../src/postgres/catalog/object-map.ts';
import { readContents } from '../../src/postgres/contents/contents.ts';
import { libpqEnvironment, parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import { requireSuccess, runProcess } from '../../src/process/run.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { createDatabase, useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { type BackupSource, createBackupSource, createKeys, fillWithBulk, never, redactor } from './archive-source.ts';

const stack = useStack();
let source: BackupSource;

beforeAll(async () => {
  source = await createBackupSource();
});

describe('a backup', () => {
  it('restores to the database it was taken of', async () => {
    const backup = await captureDump(source.request());
    const restored = await createDatabase(stack.postgres.scratch, 'archive_restored');
    const result = await runProcess({
      file: source.programs.pg_restore.file,
      args: ['--exit-on-error', '--no-owner', '--no-privileges', `--dbname=${restored.name}`],
      environment: libpqEnvironment(parseConnectionUrl(restored.url)),
      input: Readable.from(openBackup({ store: source.store, backup, identity: source.identity, signal: never() })),
      signal: never(),
      redactor,
    });
    requireSuccess(result, 'pg_restore');

    const content = (url: string) =>
      withClient(url, async (client) => {
        const customers = await client.query(
          `SELECT md5(string_agg(c::text, '|' ORDER BY id)) AS digest FROM public.customer c`,
        );
        const { tables, sequences } = await readContents([client], { sampleAbove: Infinity });
        return { tables, sequences, customers: customers.rows };
      });
    const [original, copy] = [await content(source.url), await content(restored.url)];
    expect(copy).toEqual(original);
    const ledger = await fetchLedger(source.store, backup, source.identity, never());
    expect(ledger.contents.tables).toEqual(original.tables);
    expect(backup).toMatchObject({ compression: 'zstd', largeObjects: 3, sampledTables: 0 });
    const map = await withClient(source.url, (client) => captureObjectMap(client));
    expect(backup.objectMapDigest).toBe(digestOf(withoutTable(map, {})));
    expect(backup).toMatchObject({ versionRows: ['a1b2c3'], tables: 5, rows: 5000 + 40 + 700 + 1 });
  });

  it('is verified by reading it back: contents, rows of every table, whole decode', async () => {
    const backup = await captureDump(source.request());
    const verified = await verifyStoredBackup(source.verification(backup));
    expect(verified).toMatchObject({
      uri: backup.uri,
      sha256: backup.sha256,
      dumpSha256: backup.dumpSha256,
      tableData: 5,
    });
    expect(verified.decodedBytes).toBeGreaterThan(5000 * 30);
    expect(verified.entries).toBeGreaterThan(15);
  });

  it('counts exactly the rows it holds while others go on writing', async () => {
    await withClient(source.url, async (client) => {
      await client.query('CREATE TABLE IF NOT EXISTS busy_table (id bigserial PRIMARY KEY, t text)');
      let writing = true;
      const writer = (async () => {
        while (writing)
          await client.query(`INSERT INTO busy_table (t) SELECT md5(n::text) FROM generate_series(1, 50) n`);
      })();
      try {
        await client.query('SELECT 1');
        const backup = await captureDump(source.request({ step: 'backup.busy' }));
        // The verification compares the archive's rows with the ledger's, table by table.
        await verifyStoredBackup(source.verification(backup));
        const ledger = await fetchLedger(source.store, backup, source.identity, never());
        const then = ledger.contents.tables.find(({ table }) => table === 'public.busy_table')?.rows;
        writing = false;
        await writer;
        const { rows } = await client.query<{ now: string }>('SELECT count(*) AS now FROM busy_table');
        expect(Number(rows[0]!.now)).toBeGreaterThan(then!);
        expect(then! % 50).toBe(0);
      } finally {
        writing = false;
        await writer;
      }
    });
  });

  it('is not touched by an attempt that was frozen right before its dump was stored, and goes on later', async () => {
    const step = 'backup.frozen';
    const reached = Promise.withResolvers<void>();
    const thaw = Promise.withResolvers<void>();
    const frozen: ObjectStore = {
      ...source.store,
      patient: () => frozen,
      upload: (key, bytes, options, keeping) =>
        source.store.upload(
          key,
          bytes,
          {
            ...options,
            beforeReplacing: async () => {
              reached.resolve();
              await thaw.promise;
              await options.beforeReplacing?.();
            },
          },
          keeping,
        ),
    };
    const first = captureDump(source.request({ step, store: frozen })).catch((error: unknown) => error);
    await reached.promise;
    const second = await captureDump(source.request({ step, attempt: 2 }));
    thaw.resolve();
    await first;
    const { backup } = await requireManifest(source.store, second, never());
    expect(backup.sha256).toBe(second.sha256);
    await verifyStoredBackup(source.verification(second));
  });

  it('is the only one of its step: what earlier attempts have stored is removed', async () => {
    const step = 'backup.third';
    const { folder } = source.request();
    await captureDump(source.request({ step }));
    const second = source.request({
      step,
      attempt: 2,
      requireCurrent: () => Promise.reject(new StepError('OutsideUnavailable', 'given up for lost')),
    });
    await expect(captureDump(second)).rejects.toMatchObject({ message: 'given up for lost' });
    const third = await captureDump(source.request({ step, attempt: 3 }));
    const names = (await source.store.list(`${folder}/${step}`, never())).map(({ key }) =>
      key.slice(folder.length + 1),
    );
    expect(names).toEqual([
      `${step}-attempt-3.backup.json`,
      `${step}-attempt-3.dump.zst.age`,
      `${step}-attempt-3.ledger.json.zst.age`,
    ]);
    await verifyStoredBackup(source.verification(third));
  });

  it('replaces what an earlier attempt of the same step stored', async () => {
    const request = source.request({ step: 'backup.again' });
    const first = await captureDump(request);
    await withClient(source.url, (client) => client.query(`INSERT INTO empty_table VALUES (1)`));
    const second = await captureDump(request);
    await withClient(source.url, (client) => client.query(`TRUNCATE empty_table`));
    expect(second.uri).toBe(first.uri);
    expect(second.rows).toBe(first.rows + 1);
    await verifyStoredBackup(source.verification(second));
    await expect(verifyStoredBackup(source.verification(first))).rejects.toMatchObject({ type: 'BackupDamaged' });
    const stored = await source.store.list(`${request.folder}/backup.again`, never());
    expect(stored.map(({ key }) => key.slice(request.folder.length + 1))).toEqual([
      'backup.again.backup.json',
      'backup.again.dump.zst.age',
      'backup.again.ledger.json.zst.age',
    ]);
  });

  it('is refused, without the password, where the backup role may not read everything', async () => {
    await withClient(source.url, async (client) => {
      await client.query(`REVOKE pg_read_all_data FROM ${client.escapeIdentifier(source.role.name)}`);
      try {
        const failure: unknown = await captureDump(source.request({ step: 'backup.denied' })).catch((error) => error);
        expect(failure).toMatchObject({ type: 'StepRefused', message: expect.stringContaining('permission denied') });
        expect(JSON.stringify(failure) + String(failure)).not.toContain(source.role.password);
      } finally {
        await client.query(`GRANT pg_read_all_data TO ${client.escapeIdentifier(source.role.name)}`);
      }
    });
  });

  it('is refused with a pg_dump of another major version', async () => {
    const major = source.programs.pg_dump.major - 1;
    const pgDump = { ...source.programs.pg_dump, version: `${major}.8`, major };
    await expect(captureDump(source.request({ pgDump }))).rejects.toMatchObject({
      type: 'StepRefused',
      message: expect.stringContaining('major version'),
    });
  });

  it('gives way where somebody queues for an exclusive lock, in place of waiting for each other for ever', async () => {
    const directory = await temporaryDirectory('archive-lock');
    const queued = join(directory, 'queued');
    const file = join(directory, 'pg_dump');
    // The real program, started only when the ALTER TABLE waits behind the session that holds the snapshot.
    await writeFile(
      file,
      `#!/bin/sh\nuntil [ -e ${queued} ]; do sleep 0.05; done\nexec ${source.programs.pg_dump.file} "$@"\n`,
      {
        mode: 0o755,
      },
    );
    await withClient(source.url, async (client) => {
      let altering: Promise<unknown> | undefined;
      const alterOnce = (): void => {
        altering ??= client.query('ALTER TABLE empty_table ADD COLUMN IF NOT EXISTS added int');
      };
      const request = source.request({
        step: 'backup.lock',
        pgDump: { ...source.programs.pg_dump, file },
        lockWait: 300,
        // The tables are locked and the snapshot is taken.
        progress: ({ phase }) => {
          if (phase === 'dump') alterOnce();
        },
      });
      const capturing = captureDump(request);
      const outcome = capturing.catch((error: unknown) => error);
      await withClient(source.url, async (observer) => {
        const waiting = `SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'empty_table'::regclass AND mode = 'AccessExclusiveLock'`;
        while ((await observer.query(waiting)).rows.length === 0) await delay(20);
      });
      await writeFile(queued, '');
      expect(await outcome).toMatchObject({
        type: 'OutsideUnavailable',
        message: expect.stringContaining('exclusive lock'),
      });
      await altering;
      expect(await source.store.list(`${request.folder}/backup.lock`, never())).toEqual([]);
    });
  });

  it('can be decrypted by each of several recipients alone', async () => {
    const [one, other] = [await createKeys(), await createKeys()];
    const backup = await captureDump(
      source.request({ step: 'backup.two', recipients: [one.recipient, other.recipient] }),
    );
    for (const { identity } of [one, other]) {
      await expect(verifyStoredBackup(source.verification(backup, { identity }))).resolves.toMatchObject({
        uri: backup.uri,
      });
    }
  });
});

describe('a backup that does not come to its end leaves neither an object nor parts of one', () => {
  let bulky: BackupSource;

  beforeAll(async () => {
    bulky = await createBackupSource();
    await fillWithBulk(bulky);
  });

  /** Runs a backup and does something to it when the store has taken the first part. */
  async function disturbed(step: string, disturb: () => Promise<void> | void, signal = never()): Promise<unknown> {
    const partSize = 5 * 1024 * 1024;
    let disturbing: Promise<void> | undefined;
    const disturbed = Promise.withResolvers<void>();
    /** Lets through what makes one part, and the rest when the disturbance is over: till then pg_dump has to wait. */
    async function* onePart(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
      let passed = 0;
      for await (const chunk of bytes) {
        yield chunk;
        passed += chunk.byteLength;
        if (passed > partSize + 100_000) await disturbed.promise;
      }
    }
    const store: ObjectStore = {
      ...bulky.store,
      patient: () => store,
      upload: (key, bytes, options, keeping) =>
        bulky.store.upload(
          key,
          onePart(bytes),
          {
            ...options,
            partSize,
            progress: (stored) => {
              options.progress(stored);
              disturbing ??= Promise.resolve(disturb()).finally(disturbed.resolve);
            },
          },
          keeping,
        ),
    };
    const outcome = await captureDump(bulky.request({ step, store, signal })).catch((error: unknown) => error);
    await disturbing;
    expect(disturbing, 'a part had been stored').toBeDefined();
    return outcome;
  }

  async function expectNothingLeft(step: string): Promise<void> {
    const { folder } = bulky.request();
    expect(await bulky.store.list(`${folder}/${step}`, never())).toEqual([]);
    expect(await bulky.store.abortUploads(`${folder}/${step}.dump.zst.age`, never())).toBe(0);
    // A session whose program was killed is gone once the server has noticed it.
    await expect
      .poll(() =>
        withClient(bulky.url, async (client) => {
          const named = 'SELECT application_name FROM pg_stat_activity WHERE usename = $1';
          return (await client.query(named, [bulky.role.name])).rows as unknown[];
        }),
      )
      .toEqual([]);
  }

  it('when pg_dump is killed', async () => {
    const outcome = await disturbed('backup.killed', async () => {
      process.kill(await pidOfDump(bulky.database), 'SIGKILL');
    });
    expect(outcome).toMatchObject({ type: 'ProcessFailed', message: expect.stringContaining('Nothing was stored') });
    await expectNothingLeft('backup.killed');
  });

  it('when the server ends the session of pg_dump', async () => {
    const outcome = await disturbed('backup.ended', () =>
      withClient(bulky.url, async (client) => {
        await client.query(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND application_name LIKE '% pg_dump'`,
          [bulky.role.name],
        );
      }),
    );
    expect(outcome).toMatchObject({ type: 'ProcessFailed', details: { program: 'pg_dump', exitCode: 1 } });
    await expectNothingLeft('backup.ended');
  });

  it('when it is cancelled', async () => {
    const stop = new AbortController();
    const reason = new Error('cancelled by the test');
    const outcome = await disturbed('backup.cancelled', () => stop.abort(reason), stop.signal);
    expect(outcome).toBe(reason);
    await expectNothingLeft('backup.cancelled');
  });
});

it('tells how far the dump has come, by what was expected, and never that it is whole before it is', async () => {
  const wide = await createBackupSource();
  await fillWithBulk(wide);
  const told: BackupProgress[] = [];
  const first = await captureDump(wide.request({ progress: (now) => told.push(now) }));
  expect(told.length).toBeGreaterThan(1);
  for (const { share } of told) expect(share).toBeLessThanOrEqual(0.99);
  const { expected } = told.at(-1)!;
  expect(expected).toBeGreaterThan(first.dumpBytes / 2);
  expect(expected).toBeLessThan(first.dumpBytes * 2);
  // The second time by the first one's size.
  const last = await findManifest(wide.store, first.uri, never());
  const again = await captureDump(wide.request({ step: 'backup.second', last, progress: (now) => told.push(now) }));
  expect(Math.abs(told.at(-1)!.expected - again.dumpBytes) / again.dumpBytes).toBeLessThan(0.05);
});

describe('the manifest', () => {
  it('names the backup in words and numbers that need no key, and is found by the URI of any of its objects', async () => {
    const request = source.request({ step: 'backup.manifest' });
    const backup = await captureDump(request);
    for (const uri of [backup.uri, backup.manifest, backup.ledger.uri]) {
      expect(await findManifest(source.store, uri, never())).toEqual({
        format: 'migration-runbook/backup/1',
        ...request.run,
        step: 'backup.manifest',
        backup,
      });
    }
    const verified = { at: '2026-11-22T10:00:00.000Z', milliseconds: 12, by: 'a test' };
    await recordVerification(source.store, backup, verified, never());
    expect(await findManifest(source.store, backup.uri, never())).toMatchObject({ verified, backup });
    const listed = await listManifests(source.store, `${request.folder}/`, never());
    expect(listed[0]).toMatchObject({ verified, backup });
    expect(listed.map(({ backup: { capturedAt } }) => capturedAt)).toEqual(
      listed
        .map(({ backup: { capturedAt } }) => capturedAt)
        .toSorted()
        .toReversed(),
    );
  });

  it('is missed with the reason: another bucket, no backup, half made, nothing there', async () => {
    const { folder } = source.request();
    const bucket = source.store.uri('');
    await source.store.put(`${folder}/half.dump.zst.age`, 'x', 'text/plain', never());
    const cases = [
      ['s3://another/x.dump.zst.age', /is not in this bucket/],
      [`${bucket}${folder}/report.html`, /names no backup/],
      [`${bucket}${folder}/half.dump.zst.age`, /has no manifest beside it: it is half made/],
      [`${bucket}${folder}/none.backup.json`, /There is no backup at/],
    ] as const;
    for (const [uri, message] of cases) {
      await expect(findManifest(source.store, uri, never())).rejects.toMatchObject({
        type: 'StepRefused',
        message: expect.stringMatching(message),
      });
    }
  });

  it('that cannot be read does not hide the others', async () => {
    const { folder } = source.request();
    await source.store.put(`${folder}/broken.backup.json`, '{"format":', 'application/json', never());
    // With a digest that fits, for that is no signature.
    const empty = { format: 'migration-runbook/backup/1' };
    const foreign = canonicalJson({ ...empty, digest: canonicalDigest(empty) });
    await source.store.put(`${folder}/foreign.backup.json`, foreign, 'application/json', never());
    const told: string[] = [];
    const listed = await listManifests(source.store, `${folder}/`, never(), (finding) => told.push(finding));
    expect(listed.length).toBeGreaterThan(0);
    expect(told.toSorted()).toEqual([expect.stringContaining('broken'), expect.stringContaining('names no backup')]);
  });
});

/** Only children of this process: others run the same program. */
async function pidOfDump(database: string): Promise<number> {
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const environment = await readFile(`/proc/${entry}/environ`, 'utf8').catch(() => '');
    const name = await readFile(`/proc/${entry}/comm`, 'utf8').catch(() => '');
    if (name.trim() === 'pg_dump' && environment.includes(`PGDATABASE=${database}\0`)) return Number(entry);
  }
  throw new Error('no pg_dump runs');
}

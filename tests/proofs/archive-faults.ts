/** Stored backups are changed at random places; each change must be refused, and the place named. */
import path from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import type { ProofCase } from '../../scripts/proof.ts';
import { stackRoot } from '../../scripts/stack/layout.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { attachStack, startStack, stopStack } from '../../scripts/stack/stack.ts';
import { captureDump } from '../../src/archive/dump.ts';
import { findManifest } from '../../src/archive/manifest.ts';
import { ownership } from '../../src/archive/object-owner.ts';
import { type ObjectStore, openObjectStore } from '../../src/archive/object-store.ts';
import { findPrograms } from '../../src/archive/programs.ts';
import { verifyStoredBackup } from '../../src/archive/verify.ts';
import type { BackupEvidence } from '../../src/contract/evidence/backup.ts';
import { Redactor } from '../../src/process/redactor.ts';

export const sentence = '200 flipped bits and 50 truncations of stored objects: all refused, with the place';

const DATABASE = 'archive_faults';
const FLIPS = { dump: 160, ledger: 20, manifest: 20 } as const;
const CUTS = { dump: 40, ledger: 5, manifest: 5 } as const;

type Part = keyof typeof FLIPS;

const SCHEMA = `
  CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
  INSERT INTO alembic_version VALUES ('a1b2c3');
  CREATE TABLE customer (id bigserial PRIMARY KEY, name text NOT NULL, note text, born date);
  CREATE TABLE invoice (id bigserial PRIMARY KEY, customer_id bigint REFERENCES customer, cents bigint, paid boolean);
  CREATE TABLE "odd ""name""" (id int PRIMARY KEY, "Full Name" text);
  CREATE TABLE reading (day date, value double precision) PARTITION BY RANGE (day);
  CREATE TABLE reading_2026 PARTITION OF reading FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
  INSERT INTO customer (name, note, born)
    SELECT 'name ' || n, md5(n::text) || md5((n * 7)::text), date '1970-01-01' + n % 9000 FROM generate_series(1, 20000) n;
  INSERT INTO invoice (customer_id, cents, paid) SELECT 1 + n % 20000, n * 37, n % 3 = 0 FROM generate_series(1, 30000) n;
  INSERT INTO "odd ""name""" SELECT n, 'x' || n FROM generate_series(1, 50) n;
  INSERT INTO reading SELECT date '2026-01-01' + n % 365, n * 0.1 FROM generate_series(1, 5000) n;
  SELECT lo_from_bytea(1001, convert_to(repeat(md5('object'), 20000), 'UTF8')), lo_create(1002);
`;

/** Everything that is needed to take backups of one small database and to look at them again. */
interface World {
  readonly store: ObjectStore;
  readonly identity: string;
  readonly backup: BackupEvidence;
  readonly capture: (runId: string) => Promise<BackupEvidence>;
  readonly verify: (identity?: string) => Promise<unknown>;
}

export async function run(say: (line: string) => void): Promise<readonly ProofCase[]> {
  const seed = Number(process.env['PROOF_SEED'] ?? Date.now() % 1_000_000);
  say(`seed ${seed} (PROOF_SEED=${seed} repeats it)`);
  return withWorld(say, async (world) => [
    await untouched(world, 'the backup as it was stored'),
    ...(await changes(world, randomFrom(seed), say)),
    ...(await replacements(world, say)),
    await untouched(world, 'the backup, all put back'),
  ]);
}

async function withWorld<T>(say: (line: string) => void, work: (world: World) => Promise<T>): Promise<T> {
  const directory = path.join(stackRoot, 'proof-archive-faults');
  if (await attachStack(directory)) await stopStack(directory);
  const stack = await startStack({ directory, parts: ['primary', 's3'], data: 'fresh', onProgress: say });
  try {
    const { s3, postgres } = stack;
    if (!s3 || !postgres.primary) throw new Error('the proof needs S3 and the primary');
    const { superuserUrl, binDirectory } = postgres.primary;
    const url = new URL(superuserUrl);
    url.pathname = `/${DATABASE}`;
    await withClient(superuserUrl, (client) => client.query(`CREATE DATABASE ${DATABASE} TEMPLATE template0`));
    await withClient(url.href, (client) => client.query(SCHEMA));
    const common = { signal: new AbortController().signal, redactor: new Redactor([]), progress: () => undefined };
    const programs = await findPrograms({ home: '/', postgresPrograms: binDirectory }, common);
    const identity = await generateX25519Identity();
    const recipients = [await identityToRecipient(identity)];
    const store = openObjectStore({ ...s3, forcePathStyle: true }, s3);
    const capture = (runId: string): Promise<BackupEvidence> =>
      captureDump({
        ...common,
        url: url.href,
        versionTable: { schema: 'public', table: 'alembic_version' },
        pgDump: programs.pg_dump,
        store,
        folder: `proof/service/${runId}`,
        run: { runId, service: 'service', releaseTag: 'v1.0.0', changeTicket: 'CHG-1' },
        step: 'backup.capture',
        recipients,
      });
    const backup = await capture('run-1');
    say(`backup of ${backup.bytes} bytes, ledger of ${backup.ledger.bytes}`);
    const verify: World['verify'] = (key = identity) =>
      verifyStoredBackup({ ...common, store, backup, identity: key, pgRestore: programs.pg_restore }).then(
        () => undefined,
        (error: unknown) => error,
      );
    try {
      return await work({ store, identity, backup, capture, verify });
    } finally {
      store.close();
    }
  } finally {
    await stack.stop();
  }
}

async function untouched({ verify }: World, name: string): Promise<ProofCase> {
  const failure = await verify();
  return { name, passed: failure === undefined, detail: failure === undefined ? 'accepted' : describe(failure) };
}

// ---- changed bits and missing ends ------------------------------------------------------------------------------------

interface Change {
  readonly part: Part;
  readonly name: string;
  readonly content: Uint8Array;
  /** Is the place that was named the place that was changed? */
  readonly names: (message: string) => boolean;
}

async function changes(world: World, random: () => number, say: (line: string) => void): Promise<readonly ProofCase[]> {
  const cases: ProofCase[] = [];
  for (const kind of ['flipped bits', 'truncations'] as const) {
    for (const part of ['dump', 'ledger', 'manifest'] as const) {
      const key = keyOf(world, part);
      const whole = (await world.store.get(key, never()))!;
      const wanted = kind === 'flipped bits' ? FLIPS[part] : CUTS[part];
      const missed: string[] = [];
      let example = '';
      for (let n = 0; n < wanted; n += 1) {
        const change = kind === 'flipped bits' ? flip(part, whole, random) : cut(part, whole, random);
        await putBack(world, part, change.content);
        const failure = await world.verify();
        const message = describe(failure);
        if (isRefusal(failure, 'BackupDamaged') && change.names(message)) example ||= `${change.name}: ${message}`;
        else missed.push(`${change.name}: ${message}`);
      }
      await putBack(world, part, whole);
      const passed = missed.length === 0 && wanted > 0;
      cases.push({
        name: `${kind} of the ${part}`,
        passed,
        detail: passed
          ? `${wanted} of ${wanted} refused with the place, e.g. ${example.slice(0, 260)}`
          : `${wanted - missed.length} of ${wanted}; not: ${missed.slice(0, 3).join(' | ')}`,
      });
      say(`${kind} of the ${part}: ${wanted - missed.length} of ${wanted}`);
    }
  }
  return cases;
}

function flip(part: Part, whole: Uint8Array, random: () => number): Change {
  const position = Math.floor(random() * whole.byteLength);
  const bit = Math.floor(random() * 8);
  const content = Uint8Array.from(whole);
  content[position]! ^= 1 << bit;
  return {
    part,
    name: `bit ${bit} of byte ${position}`,
    content,
    names: (message) => {
      if (part === 'manifest') return message.includes('its manifest');
      if (part === 'ledger' && !message.includes('its ledger')) return false;
      // A changed header may fit no identity: then no more is known than that it begins at 0.
      const [from, to] = (/bytes (\d+) to (\d+) of the object/.exec(message) ?? [])
        .slice(1)
        .map((number) => Number(number));
      if (from !== undefined && to !== undefined) return from <= position && position < to;
      return /age header .*byte 0/.test(message) && position < headerLength(whole);
    },
  };
}

function cut(part: Part, whole: Uint8Array, random: () => number): Change {
  const length = Math.floor(random() * whole.byteLength);
  return {
    part,
    name: `cut to ${length} bytes`,
    content: whole.subarray(0, length),
    names: (message) =>
      part === 'dump'
        ? message.includes(`truncated at byte ${length}`)
        : message.includes(`its ${part}`) && message.includes(`${length} bytes`),
  };
}

/** Of the age header and the nonce behind it. */
const headerLength = (whole: Uint8Array): number => {
  const text = Buffer.from(whole.subarray(0, 4096)).toString('latin1');
  return text.indexOf('\n', text.indexOf('\n--- ') + 1) + 1 + 16;
};

// ---- whole objects ----------------------------------------------------------------------------------------------------

async function replacements(world: World, say: (line: string) => void): Promise<readonly ProofCase[]> {
  const { store, verify, backup } = world;
  const other = await world.capture('run-2');
  const otherKey = await generateX25519Identity();
  const cases: ProofCase[] = [];
  const expect = async (
    name: string,
    { type, says }: { readonly type: string; readonly says: RegExp },
    attempt: () => Promise<unknown>,
  ): Promise<void> => {
    const failure = await attempt();
    const message = describe(failure);
    cases.push({ name, passed: isRefusal(failure, type) && says.test(message), detail: message.slice(0, 300) });
    say(`${name}: ${message.slice(0, 120)}`);
  };

  await expect('wrong identity', { type: 'StepRefused', says: /is intact, but backup\.identity/ }, () =>
    verify(otherKey),
  );
  for (const part of ['dump', 'ledger', 'manifest'] as const) {
    const key = keyOf(world, part);
    const whole = (await store.get(key, never()))!;
    const missing = part === 'dump' ? /the object is no longer/ : new RegExp(`its ${part} .* is no longer`);
    await store.delete(key, never());
    await expect(`${part} missing`, { type: 'BackupDamaged', says: missing }, () => verify());
    const theirs = (await store.get(keyOf({ ...world, backup: other }, part), never()))!;
    await store.put(key, theirs, 'application/octet-stream', never(), { as: 'backup', metadata: whose('run-2') });
    await expect(`${part} replaced by another run's`, { type: 'BackupDamaged', says: /run run-2\b/ }, () => verify());
    if (part !== 'manifest') {
      // Nothing is noted on it, and another header and ending tell nothing about its age.
      await putBack(world, part, theirs);
      const says = part === 'dump' ? /replaced|SHA-256/ : /its ledger .* is not the one that was stored/;
      await expect(`${part} replaced, without a note whose it is`, { type: 'BackupDamaged', says }, () => verify());
    }
    await putBack(world, part, whole);
  }
  const manifest = keyOf(world, 'manifest');
  const whole = (await store.get(manifest, never()))!;
  await store.delete(manifest, never());
  await expect('a backup without a manifest, by its URI', { type: 'StepRefused', says: /no manifest beside it/ }, () =>
    findManifest(store, backup.uri, never()).catch((error: unknown) => error),
  );
  await putBack(world, 'manifest', whole);
  return cases;
}

// ---- small things -----------------------------------------------------------------------------------------------------

const never = (): AbortSignal => new AbortController().signal;

const keyOf = ({ store, backup }: Pick<World, 'store' | 'backup'>, part: Part): string =>
  ({ dump: backup.uri, ledger: backup.ledger.uri, manifest: backup.manifest })[part].slice(store.uri('').length);

const whose = (runId: string): Record<string, string> =>
  ownership({ runId, service: 'service', step: 'backup.capture' });

const putBack = (world: World, part: Part, content: Uint8Array): Promise<unknown> =>
  world.store.put(keyOf(world, part), content, 'application/octet-stream', never());

const isRefusal = (failure: unknown, type: string): boolean =>
  failure instanceof Error && (failure as { type?: unknown }).type === type;

const describe = (failure: unknown): string =>
  failure === undefined ? 'ACCEPTED' : failure instanceof Error ? failure.message : 'something that is no error';

/** Mulberry32: the same numbers for the same seed, 0 to 1. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 4_294_967_296;
  };
}

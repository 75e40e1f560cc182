/** Moments of backup and restore, each held by something real until the worker has been killed in it. */
import { readdir } from 'node:fs/promises';
import { Client } from 'pg';
import type { PostgresServer } from '../../../scripts/stack/connection.ts';
import type { Example } from '../../../scripts/stack/example.ts';
import { dumpOf, isOfStep, manifestOf, type NameOf, objectsOf, unfinishedUploads } from './aftermath.ts';
import { copying, freeze, freezePostmaster, type Frozen } from './frozen.ts';
import { eventually, type StepUnderWay } from './progress.ts';
import type { Hold, StoreGateway } from './store-gateway.ts';

export interface Scene {
  readonly example: Example;
  readonly gateway: StoreGateway;
  readonly primary: PostgresServer;
  /** Superuser, in the maintenance database of production's server; connected before anything is held. */
  readonly observer: Client;
  readonly runId: string;
  /** The workers'. */
  readonly temporaryFolder: string;
}

/** Prepared before the step begins, or begins again. */
export interface Moment {
  /** Settles when the step is there and stays there; says what was seen. */
  readonly reached: Promise<string>;
  /** After the kill: what shows that it was not this moment. */
  readonly doubts: () => Promise<readonly string[]>;
  readonly release: () => Promise<void> | void;
}

export interface Step {
  readonly id: string;
  /** Settles when the step, or its next attempt, is under way. */
  readonly begins: () => Promise<unknown>;
  readonly underWay: () => Promise<StepUnderWay | undefined>;
}

export type Arm = (scene: Scene, step: Step) => Moment;

const MEGABYTE = 1024 * 1024;

/** pg_dump is in the middle of a table: its server process stands still. */
export const midDump: Arm = (scene, step) => {
  const { frozen, reached } = frozenCopy(scene, step, 'COPY TO', scene.example.databases.production);
  return {
    reached,
    doubts: () => present(scene, step, { absent: [dumpOf, manifestOf] }),
    release: () => frozen.forEach(({ thaw }) => thaw()),
  };
};

/** The store has the first part; the second one does not reach it. */
export const midUpload: Arm = ({ gateway, example, runId }, step) => {
  const hold = gateway.hold(
    'request',
    ({ method, key, query }) => method === 'PUT' && isOfStep(key, dumpOf, step.id) && query.get('partNumber') === '2',
  );
  return {
    reached: hold.reached.then(() => 'part 2 of the upload held'),
    doubts: async () => {
      const uploads = await unfinishedUploads(example.stack);
      return uploads.some(({ key, parts }) => key.includes(runId) && parts > 0) ? [] : ['the store had no part of it'];
    },
    release: hold.release,
  };
};

/** Dump and ledger are whole in the store; the manifest does not reach it. */
export const uploadedNotRecorded: Arm = (scene, step) =>
  storeMoment(
    scene,
    step,
    scene.gateway.hold('request', ({ method, key }) => method === 'PUT' && isOfStep(key, manifestOf, step.id)),
    'the manifest held',
    { present: [dumpOf], absent: [manifestOf] },
  );

/** All three are in the store; the worker has not heard so. */
export const recordedNotReplied: Arm = (scene, step) =>
  storeMoment(
    scene,
    step,
    scene.gateway.hold('answer', ({ method, key }) => method === 'PUT' && isOfStep(key, manifestOf, step.id)),
    'the answer to the manifest held',
    { present: [dumpOf, manifestOf] },
  );

/** The first range has been read back; the second one does not come. */
export const midVerify: Arm = (scene, step) =>
  storeMoment(
    scene,
    step,
    scene.gateway.hold(
      'request',
      ({ method, key, rangeStart }) => method === 'GET' && isOfStep(key, dumpOf, 'backup.capture') && rangeStart > 0,
    ),
    'the second range held',
    {},
  );

/** A table of the fresh database is half filled: the server process that fills it stands still. */
export const midRestore: Arm = (scene, step) => {
  const { frozen, reached } = frozenCopy(scene, step, 'COPY FROM', freshPrefix(scene.example));
  return {
    reached,
    doubts: async () => ((await isOpen(scene)) ? [] : ['production was shut already']),
    release: () => frozen.forEach(({ thaw }) => thaw()),
  };
};

/**
 * Indexes are being built, for which the contents list lies on the worker's disk: a lock on the table, taken while its rows
 * still come, keeps the first of them waiting.
 */
export const midIndexes: Arm = (scene, step) => {
  const { observer, primary, temporaryFolder, example } = scene;
  let holder: Client | undefined;
  return {
    reached: (async () => {
      // The database of the attempt before is still filled for a moment: it is about to be dropped.
      const since = new Date();
      await step.begins();
      const wanted = { command: 'COPY FROM', database: freshPrefix(example), bytes: 1, since } as const;
      const { database } = await eventually('rows are restored', () => copying(observer, wanted), 5);
      holder = await holding(inDatabase(primary, database), 'LOCK TABLE public.recordings IN ROW EXCLUSIVE MODE');
      await eventually('an index waits for the lock', () => somebodyWaits(holder!, 'public.recordings'));
      const files = await readdir(temporaryFolder, { recursive: true });
      return `an index waits, ${files.length} names in the temporary folder`;
    })(),
    doubts: async () => ((await readdir(temporaryFolder)).length > 0 ? [] : ['no file was on the disk']),
    release: () => holder?.end().catch(() => undefined),
  };
};

/** The fresh database is filled and compared; that it gets production's rights waits for a lock. */
export const compared: Arm = (scene, step) => {
  const { observer, primary, example } = scene;
  const phase = async (): Promise<unknown> => (await step.underWay())?.details['phase'];
  let holder: Client | undefined;
  return {
    reached: (async () => {
      // The database of the attempt before is still filled for a moment: it is about to be dropped.
      const since = new Date();
      await step.begins();
      const wanted = { command: 'COPY FROM', database: freshPrefix(example), bytes: 1, since } as const;
      await eventually('rows are restored', () => copying(observer, wanted), 5);
      holder = await holding(primary.superuserUrl, 'LOCK TABLE pg_catalog.pg_database IN SHARE MODE');
      await eventually('its rights wait for the lock', () => somebodyWaits(holder!, 'pg_catalog.pg_database'));
      // Heartbeats are sent now and then: a comparison may be over before one has told of it.
      await eventually('the step tells that it compares', async () =>
        (await phase()) === 'compare' ? true : undefined,
      );
      return 'its rights wait';
    })(),
    doubts: async () => {
      const last = await phase();
      return last === 'compare' ? [] : [`the step was at ${String(last)}`];
    },
    release: () => holder?.end().catch(() => undefined),
  };
};

/** A session of its own with an open transaction that has executed this. */
async function holding(url: string, lock: string): Promise<Client> {
  const client = new Client({ connectionString: url, application_name: 'holding' });
  client.on('error', () => undefined);
  await client.connect();
  await client.query('BEGIN');
  await client.query(lock);
  return client;
}

async function somebodyWaits(holder: Client, relation: string): Promise<true | undefined> {
  // Within a transaction the list of sessions stays as it was first read.
  await holder.query('SELECT pg_stat_clear_snapshot()');
  const { rows } = await holder.query(
    `SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
     WHERE NOT l.granted AND l.relation = $1::regclass AND a.application_name LIKE 'migration-runbook/%'`,
    [relation],
  );
  return rows.length > 0 ? true : undefined;
}

function inDatabase({ superuserUrl }: PostgresServer, database: string): string {
  const url = new URL(superuserUrl);
  url.pathname = `/${encodeURIComponent(database)}`;
  return url.href;
}

/** Nobody gets in any more, and one session of the application stays, since its server process stands still. */
export const shutOut: Arm = (scene) => {
  const { frozen, reached, disconnect } = stubbornSession(scene, () => restoring(scene));
  return {
    reached,
    doubts: async () => ((await isOpen(scene)) ? ['connections were allowed'] : []),
    release: async () => {
      frozen.forEach(({ thaw }) => thaw());
      await disconnect();
    },
  };
};

/**
 * The names have changed. As at the moment before, but then nobody new gets in at all, since the server's main process
 * stands still: the swap goes on over the session it has, and cannot read anything through production's name afterwards.
 */
export const renamedNotReplied: Arm = (scene) => {
  const { frozen, reached, disconnect } = stubbornSession(scene, async () => undefined);
  const oidBefore = oidOf(scene);
  return {
    reached: (async () => {
      const before = await oidBefore;
      const shut = await reached;
      const [victim] = frozen;
      frozen.push(await freezePostmaster(scene.primary));
      victim?.thaw();
      await eventually('the names are swapped', async () => ((await oidOf(scene)) === before ? undefined : true));
      return `${shut}, then the name leads to another database`;
    })(),
    doubts: async () => ((await oidOf(scene)) === (await oidBefore) ? ['the names had not changed'] : []),
    release: async () => {
      frozen.forEach(({ thaw }) => thaw());
      await disconnect();
    },
  };
};

/** Objects of the step's backups. */
interface Objects {
  readonly present?: readonly NameOf[];
  readonly absent?: readonly NameOf[];
}

function storeMoment(scene: Scene, step: Step, hold: Hold, seen: string, objects: Objects): Moment {
  return {
    reached: hold.reached.then(() => seen),
    doubts: () => present(scene, step, objects),
    release: hold.release,
  };
}

async function present({ example, runId }: Scene, { id }: Step, expected: Objects): Promise<string[]> {
  const objects = await objectsOf(example.stack, runId);
  const isThere = (nameOf: NameOf): boolean => objects.some((name) => isOfStep(name, nameOf, id));
  return [
    ...(expected.present ?? []).filter((nameOf) => !isThere(nameOf)).map((nameOf) => `${nameOf(id)} was not there yet`),
    ...(expected.absent ?? []).filter(isThere).map((nameOf) => `${nameOf(id)} was there already`),
  ];
}

function frozenCopy(
  { observer }: Scene,
  step: Step,
  command: 'COPY TO' | 'COPY FROM',
  database: string,
): { readonly frozen: Frozen[]; readonly reached: Promise<string> } {
  const frozen: Frozen[] = [];
  const reached = (async () => {
    const wanted = { command, database, bytes: MEGABYTE };
    await step.begins();
    const { pid } = await eventually(`a ${command} is under way`, () => copying(observer, wanted), 5);
    frozen.push(freeze(pid));
    const still = await copying(observer, wanted);
    if (still?.pid !== pid) throw new Error(`the ${command} had ended before it could be held`);
    return `${command} held after ${Math.round(still.bytes / MEGABYTE)} MB`;
  })();
  return { frozen, reached };
}

export const freshPrefix = ({ databases }: Pick<Example, 'databases'>): string => `${databases.production}_restore_`;

/**
 * A session of the application in production that cannot be ended: frozen as soon as it has got in.
 *
 * @param since settles when it may try to. Not before the fresh database is there: a server process that stands still holds
 * up every DROP DATABASE on its server.
 */
function stubbornSession(
  scene: Scene,
  since: () => Promise<unknown>,
): {
  readonly frozen: Frozen[];
  readonly reached: Promise<string>;
  readonly disconnect: () => Promise<void>;
} {
  const frozen: Frozen[] = [];
  let session: Client | undefined;
  const reached = (async () => {
    await since();
    session = await eventually('a session gets in', () => logIn(scene.example.urls.production.application), 5);
    await eventually('connections are shut out', async () => ((await isOpen(scene)) ? undefined : true));
    return 'shut out, a session left';
  })();

  async function logIn(connectionString: string): Promise<Client | undefined> {
    const client = new Client({ connectionString, application_name: 'stubborn' });
    client.on('error', () => undefined);
    try {
      await client.connect();
      const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
      frozen.push(freeze(rows[0]!.pid));
      return client;
    } catch {
      await client.end().catch(() => undefined);
      return undefined;
    }
  }

  return { frozen, reached, disconnect: async () => session?.end().catch(() => undefined) };
}

/** Settles when an attempt that begins from now on has made the fresh database and is in it. */
async function restoring({ observer, example }: Scene): Promise<true> {
  const { rows: clock } = await observer.query<{ now: string }>('SELECT clock_timestamp()::text AS now');
  return eventually(
    'the backup is restored',
    async () => {
      const { rows } = await observer.query(
        `SELECT FROM pg_stat_activity WHERE starts_with(datname, $1) AND backend_start > $2::timestamptz
           AND application_name LIKE 'migration-runbook/%'`,
        [freshPrefix(example), clock[0]!.now],
      );
      return rows.length > 0 ? true : undefined;
    },
    20,
  );
}

async function isOpen({ observer, example }: Scene): Promise<boolean> {
  const { rows } = await observer.query<{ open: boolean }>(
    'SELECT datallowconn AND datconnlimit <> 0 AS open FROM pg_database WHERE datname = $1',
    [example.databases.production],
  );
  return rows[0]?.open ?? false;
}

async function oidOf({ observer, example }: Scene): Promise<string | undefined> {
  const { rows } = await observer.query<{ oid: string }>('SELECT oid::text FROM pg_database WHERE datname = $1', [
    example.databases.production,
  ]);
  return rows[0]?.oid;
}

/** What anybody can see of a migration from outside: its role's sessions on the server, its processes on the host. */
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';

export interface OutsideView {
  /** A database on the server, seen by its superuser. */
  readonly superuserUrl: string;
  readonly role: string;
  /** `NAME=value` that every process of the migration has in its environment. */
  readonly mark: string;
}

export interface OutsideWatch {
  /** Ends the watch. @returns clock (`performance.now()`) of the first look after which nothing was seen any more */
  readonly leave: () => Promise<number>;
}

const INTERVAL = 20;

/** Looks every 20 ms for sessions of the role, whatever their kind, and for living processes with the mark. */
export async function watchFromOutside({ superuserUrl, role, mark }: OutsideView): Promise<OutsideWatch> {
  const client = new Client({ connectionString: superuserUrl, application_name: 'outside' });
  await client.connect();
  const processes = new MarkedProcesses(mark);
  const stopped = new AbortController();
  let goneSince: number | undefined;
  const look = async (): Promise<void> => {
    const [{ rows }, living] = await Promise.all([
      client.query('SELECT FROM pg_stat_activity WHERE usename = $1', [role]),
      processes.living(),
    ]);
    if (rows.length + living > 0) goneSince = undefined;
    else goneSince ??= performance.now();
  };
  const watching = (async () => {
    while (!stopped.signal.aborted) {
      await look();
      await delay(INTERVAL);
    }
  })();
  watching.catch(() => undefined);
  return {
    leave: async () => {
      stopped.abort();
      try {
        await watching;
        await look();
      } finally {
        await client.end();
      }
      if (goneSince === undefined) throw new Error('something of the migration is there still');
      return goneSince;
    },
  };
}

/** The process of Alembic itself, by the mark in its environment. */
export async function alembicProcess(mark: string): Promise<number | undefined> {
  for (const id of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const [environment, command] = await Promise.all(
      ['environ', 'cmdline'].map((name) => readFile(`/proc/${id}/${name}`, 'latin1').catch(() => '')),
    );
    if (environment?.split('\0').includes(mark) && command?.includes('launch.py')) return Number(id);
  }
  return undefined;
}

/** Between fork and exec a process has the environment of its parent: only later looks are final. */
const LOOKS = 10;

class MarkedProcesses {
  readonly #mark: string;
  readonly #others = new Map<string, number>();

  constructor(mark: string) {
    this.#mark = mark;
  }

  async living(): Promise<number> {
    const ids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
    const found = await Promise.all(
      ids.filter((id) => (this.#others.get(id) ?? 0) < LOOKS).map((id) => this.#isMarked(id)),
    );
    return found.filter(Boolean).length;
  }

  /** Of a zombie, and of a process of somebody else, there is nothing to be read. */
  async #isMarked(id: string): Promise<boolean> {
    const environment = await readFile(`/proc/${id}/environ`, 'latin1').catch(() => '');
    if (environment.split('\0').includes(this.#mark)) return true;
    this.#others.set(id, (this.#others.get(id) ?? 0) + 1);
    return false;
  }
}

import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from 'pg';
import { sqlState } from './database-error.ts';
import { type BlockingSession, stillOpen } from './lock-waits.ts';

export interface BlockerRules {
  /** `never`, or milliseconds after which a session that blocks is ended. */
  readonly endAfter: 'never' | number;
  /** Login roles whose sessions are this tool's and are never ended. */
  readonly ownRoles: readonly string[];
}

interface Known {
  readonly session: BlockingSession;
  /** When `session` was read; all times by this process's clock. */
  readonly met: number;
  /** The try in which it was met first. */
  readonly inTry: number;
  /** Since when every look has shown it. */
  since: number;
  /** Milliseconds it had been shown before that. */
  before: number;
  seen: number;
  /** The last look that has shown it, and as what. */
  look: number;
  as: 'blocking' | 'awaited';
  /** Why it could not be ended, or that it was. */
  ending?: string;
}

const SHOWN = 20;
/** Sessions of every run of this tool, by application name. */
const OWN_APPLICATION = 'migration-runbook/';

/** Who stands or has stood in the way of a migration, since when, and what was done about it. Outlives the single try. */
export class BlockerRegister {
  private readonly rules: BlockerRules;
  private readonly known = new Map<string, Known>();
  private looks = 0;

  constructor(rules: BlockerRules) {
    this.rules = rules;
  }

  /** Takes down who blocks now, and ends those who have done so, in every look since, for long enough. */
  async meet(client: Client, blocking: readonly BlockingSession[], inTry: number): Promise<void> {
    await this.meetBoth(client, { blocking, awaited: [] }, inTry);
  }

  /** The same, beside others who block nobody and are waited for only: they are never ended for that. */
  async meetBoth(
    client: Client,
    {
      blocking,
      awaited,
    }: { readonly blocking: readonly BlockingSession[]; readonly awaited: readonly BlockingSession[] },
    inTry: number,
  ): Promise<void> {
    this.looks += 1;
    for (const session of awaited) this.show(session, inTry, 'awaited');
    for (const session of blocking) this.show(session, inTry, 'blocking');
    await this.endThoseDue(
      client,
      blocking.map(({ key }) => key),
    );
  }

  /**
   * Waits until none of those seen since `from` (milliseconds since the epoch) is open any more.
   *
   * @param tell called at every look with those who are
   * @returns who still is after `patience` milliseconds
   */
  async outlast(
    client: Client,
    options: {
      readonly from: number;
      readonly patience: number;
      readonly signal: AbortSignal;
      readonly tell: (blocking: readonly BlockingSession[]) => void;
    },
  ): Promise<readonly BlockingSession[]> {
    const began = Date.now();
    const awaited = [...this.known].filter(([, { seen }]) => seen >= options.from).map(([key]) => key);
    for (;;) {
      options.signal.throwIfAborted();
      this.looks += 1;
      const open = await stillOpen(client, awaited);
      const waited = Date.now() - began;
      const left = [...open].map((key) => {
        const known = this.known.get(key)!;
        this.showAgain(known, 'blocking');
        return aged(known.session, known.met);
      });
      options.tell(left);
      if (left.length === 0 || waited >= options.patience) return left;
      await this.endThoseDue(client, [...open]);
      await pause(Math.min(250, Math.max(1, options.patience - waited)), undefined, { signal: options.signal });
    }
  }

  /** Who has stood in the way since `from` (milliseconds since the epoch), in words, 20 at most. */
  words(from = 0): readonly string[] {
    return [...this.known.values()]
      .filter(({ seen }) => seen >= from)
      .slice(-SHOWN)
      .map(({ session, since, before, inTry, seen, ending }) => {
        const waited = `${session.waitedFor} waited ${seconds(before + seen - since)} for it`;
        return `try ${inTry}: ${describeBlocker(session)}: ${waited}${ending === undefined ? '' : `; ${ending}`}`;
      });
  }

  private show(session: BlockingSession, inTry: number, as: Known['as']): void {
    const known = this.known.get(session.key);
    if (known) return this.showAgain(known, as);
    const now = Date.now();
    this.known.set(session.key, { session, met: now, inTry, since: now, before: 0, seen: now, look: this.looks, as });
  }

  /** Who was out of the way in between, or was waited for only, begins anew. */
  private showAgain(known: Known, as: Known['as']): void {
    const now = Date.now();
    if (known.look < this.looks - 1 || known.as !== as) {
      known.before += known.seen - known.since;
      known.since = now;
    }
    known.seen = now;
    known.look = this.looks;
    known.as = as;
  }

  private async endThoseDue(client: Client, keys: readonly string[]): Promise<void> {
    const { endAfter, ownRoles } = this.rules;
    if (endAfter === 'never') return;
    for (const key of keys) {
      const known = this.known.get(key);
      if (known === undefined || Date.now() - known.since < endAfter) continue;
      known.ending = whyNeverEnded(known.session, ownRoles) ?? (await terminate(client, known.session));
    }
  }
}

function aged(session: BlockingSession, met: number): BlockingSession {
  const more = Date.now() - met;
  return { ...session, transactionAge: session.transactionAge + more, queryAge: session.queryAge + more };
}

export const describeBlocker = ({ pid, role, application, state, transactionAge }: BlockingSession): string =>
  `${pid === 0 ? application : `pid ${pid} (${application === '' ? 'no application name' : application})`} of role "${role}", ${state}, transaction open for ${seconds(transactionAge)}`;

const seconds = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(1)} s`;

function whyNeverEnded(
  { prepared, backendType, role, application }: BlockingSession,
  ownRoles: readonly string[],
): string | undefined {
  if (prepared !== null) return 'not ended: it has no session, COMMIT PREPARED or ROLLBACK PREPARED it';
  if (backendType === 'autovacuum worker') return 'not ended: autovacuum gives way by itself unless it must not';
  if (backendType !== 'client backend') return `not ended: ${backendType}`;
  if (ownRoles.includes(role) || application.startsWith(OWN_APPLICATION)) return 'not ended: a session of this tool';
  return undefined;
}

/** Start of the session and of its transaction beside the process id: by now it may be somebody else, or have finished. */
async function terminate(client: Client, { key, superuser }: BlockingSession): Promise<string> {
  try {
    const { rows } = await client.query<{ ended: boolean }>(
      `SELECT pg_terminate_backend(a.pid) AS "ended" FROM pg_stat_activity a
       WHERE concat_ws(' ', a.pid, to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                       to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) = $1`,
      [key],
    );
    return rows[0]?.ended === false ? 'could not be ended' : 'its session was ended (guard.endBlockersAfter)';
  } catch (error) {
    if (sqlState(error) !== '42501') throw error;
    return superuser
      ? 'not ended: a superuser, whom only a superuser may end'
      : 'not ended: not permitted, pg_signal_backend is missing';
  }
}

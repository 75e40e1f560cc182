import { withServiceStore } from '../archive/service-store.ts';
import type { Client } from '@temporalio/client';
import type { Client as PostgresClient } from 'pg';
import { StepError } from '../contract/errors.ts';
import { ownerState } from '../history/owner-state.ts';
import { isSameDatabase, readIdentity } from '../postgres/identity.ts';
import { durationText, sizeText, timeText } from '../report/quantity.ts';
import { dropLeftoverDatabase, findLeftoverDatabases } from '../sweep/databases.ts';
import {
  judge,
  type Judgement,
  type JudgementRules,
  type Leftover,
  leftoverName,
  leftoverWhat,
  type RunState,
} from '../sweep/leftover.ts';
import { dropLeftoverRole, findLeftoverRoles } from '../sweep/roles.ts';
import { abortLeftoverUpload, deleteLeftoverObject, findLeftoverObjects } from '../sweep/objects.ts';
import type { TemporalAddress } from '../temporal-connection.ts';
import { withClient } from './connection.ts';
import { oneLine } from './one-line.ts';
import { type ServiceAccess, withServiceAccess } from './service-access.ts';
import { ServiceDatabases } from './service-databases.ts';

export interface SweepOptions extends TemporalAddress {
  readonly profiles: string;
  readonly remove?: true;
  readonly forgotten?: true;
}

/** A leftover and what became of it. */
export type SweptLeftover = Leftover & {
  readonly run: RunState;
  readonly verdict: Judgement | { readonly kind: 'removed' } | { readonly kind: 'not-removed'; readonly why: string };
};

export interface SweepResult {
  readonly leftovers: readonly SweptLeftover[];
  /** Places that could not be looked at: what is there is not known. */
  readonly unseen: readonly string[];
}

/** Looks everywhere runs of a service leave something, and removes what is nobody's any more if it is asked to. */
class Sweep {
  private readonly access: ServiceAccess;
  private readonly client: Client;
  private readonly databases: ServiceDatabases;
  private readonly unseen: string[] = [];

  constructor(access: ServiceAccess, client: Client) {
    this.access = access;
    this.client = client;
    this.databases = new ServiceDatabases(access, 'sweep');
  }

  async run(
    mode: 'list' | 'remove',
    rules: JudgementRules,
    told: (leftover: SweptLeftover) => void,
  ): Promise<SweepResult> {
    const swept: SweptLeftover[] = [];
    for (const leftover of await this.find()) {
      const run = await ownerState(this.client, leftover.owner);
      const judgement = judge(leftover, run, rules);
      const verdict: SweptLeftover['verdict'] =
        mode === 'remove' && judgement.kind === 'removable' ? await this.attemptRemoval(leftover) : judgement;
      const done = { ...leftover, run, verdict };
      swept.push(done);
      told(done);
    }
    return { leftovers: swept, unseen: this.unseen };
  }

  private async find(): Promise<Leftover[]> {
    const { profile, signal } = this.access;
    const { service } = profile;
    const found: Leftover[] = [];
    let production: string | undefined;
    for (const server of ['production', 'scratch'] as const) {
      await this.look(`the ${server} server`, () =>
        this.databases.on(server, async (client) => {
          const { systemIdentifier } = await readIdentity(client);
          if (server === 'production') production = systemIdentifier;
          // One server may serve as both; but a physical clone has the same identifier, and leftovers of its own.
          else if (systemIdentifier === production && (await this.isProduction(client))) return;
          found.push(...(await findLeftoverDatabases(client, server, service)));
          // Behind the databases in which they have rights: those must go first.
          if (server === 'scratch') found.push(...(await findLeftoverRoles(client, service)));
        }),
      );
    }
    await this.look('the object store', () =>
      withServiceStore(this.access, async (store) => {
        found.push(...(await findLeftoverObjects(store, profile.backup, service, signal)));
      }),
    );
    return found;
  }

  private async isProduction(scratch: PostgresClient): Promise<boolean> {
    const { database } = await readIdentity(scratch);
    return this.databases.on('production', (client) => isSameDatabase(client, scratch), { named: database });
  }

  private async look(place: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.unseen.push(`${place} could not be looked at: ${this.reason(error)}`);
    }
  }

  private async attemptRemoval(leftover: Leftover): Promise<SweptLeftover['verdict']> {
    try {
      await this.remove(leftover);
      return { kind: 'removed' };
    } catch (error) {
      return { kind: 'not-removed', why: this.reason(error) };
    }
  }

  private remove(leftover: Leftover): Promise<void> {
    const { signal } = this.access;
    switch (leftover.kind) {
      case 'database':
        return this.dropDatabase(leftover);
      case 'role':
        return this.databases.on('scratch', (client) => dropLeftoverRole(client, leftover, signal));
      case 'upload':
        return withServiceStore(this.access, (store) => abortLeftoverUpload(store, leftover, signal));
      case 'object':
        return withServiceStore(this.access, (store) => deleteLeftoverObject(store, leftover, signal));
    }
  }

  private async dropDatabase(leftover: Leftover & { readonly kind: 'database' }): Promise<void> {
    const { signal } = this.access;
    const production = [await this.databases.productionName()];
    const drop = (held: AbortSignal): Promise<void> =>
      this.databases.on(
        leftover.server,
        (client) => dropLeftoverDatabase(client, leftover, { production, signal: held }),
        { signal: held },
      );
    await (leftover.server === 'production' ? this.databases.withMigrationLock(drop) : drop(signal));
  }

  /** Only what can be told to people passes: anything else is a mistake in here. */
  private reason(error: unknown): string {
    this.access.signal.throwIfAborted();
    if (!(error instanceof StepError)) throw error;
    return this.access.secrets.redactor.redact(error.message);
  }
}

export function leftoverText(leftover: SweptLeftover, now: number): string {
  const { owner, since, expiresAt, bytes } = leftover;
  const facts = [
    `run ${owner.runId} (${owner.workflowId}, ${leftover.run})`,
    ...(owner.step === '' ? [] : [`step ${owner.step}`]),
    ...(since === null ? [] : [`${durationText(Math.max(0, now - Date.parse(since)))} old`]),
    ...(bytes === null ? [] : [sizeText(bytes)]),
    `${Date.parse(expiresAt) <= now ? 'expired' : 'expires'} ${timeText(expiresAt)}`,
  ];
  return `${leftoverWhat(leftover)}: ${leftoverName(leftover)}\n    ${facts.join(', ')}\n    ${verdictText(leftover.verdict)}`;
}

function verdictText(verdict: SweptLeftover['verdict']): string {
  switch (verdict.kind) {
    case 'removable':
      return 'may be removed: give --remove';
    case 'removed':
      return 'removed';
    case 'kept':
      return `kept: ${verdict.why}`;
    case 'not-removed':
      return `NOT removed: ${oneLine(verdict.why)}`;
  }
}

/** @param told of each leftover once it is known what becomes of it, as text */
export const sweepService = (
  service: string,
  options: SweepOptions,
  told: (text: string) => void,
): Promise<SweepResult> =>
  withServiceAccess(options.profiles, service, (access) =>
    withClient(options, (client) => {
      const now = Date.now();
      const rules: JudgementRules = { now, forgotten: options.forgotten ? 'remove' : 'keep' };
      return new Sweep(access, client).run(options.remove ? 'remove' : 'list', rules, (leftover) => {
        told(leftoverText(leftover, now));
      });
    }),
  );

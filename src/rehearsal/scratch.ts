/** Databases of a rehearsal on the scratch server: the restored one, which stays as it is, and copies of it to be spoiled. */
import type { DatabaseIdentity } from '../contract/evidence/production.ts';
import type { RestoreEvidence } from '../contract/evidence/restore.ts';
import { withConnection } from '../postgres/connection.ts';
import type { ConnectionTarget } from '../postgres/connection-url.ts';
import { listMarkedDatabases } from '../postgres/restore/database-mark.ts';
import { restoreBackup, type RestoreBackupRequest } from '../postgres/restore/restore-backup.ts';
import type { RestoreLedger } from '../postgres/restore/restore-compare.ts';
import { dropMarkedRole, listMarkedRoles } from '../postgres/restore/role-mark.ts';
import {
  copyName,
  type CopyKind,
  type CopyLedger,
  createEmptyCopy,
  dropCopies,
  dropCopy,
  scratchSession,
} from '../postgres/restore/scratch-copy.ts';
import { createTemplateCopy, dropTemplateCopy } from '../postgres/restore/template-copy.ts';
import { endSessions } from '../postgres/sessions.ts';
import { neutralize, type Neutralized } from './neutralize.ts';
import { COPY_PURPOSES, type CopyPurpose, type ScratchWorld } from './scratch-world.ts';

export interface IsolatedRestore
  extends Omit<RestoreBackupRequest, 'target' | 'ledger' | 'isolate' | 'runId' | 'step' | 'signal'> {
  readonly world: ScratchWorld;
  readonly kind: CopyKind;
  readonly ledger: RestoreLedger & CopyLedger;
  /** libpq URL of a role of production, resolved: only to be told apart from. */
  readonly production: string;
}

export interface RestoredCopy extends Neutralized {
  readonly database: string;
  readonly server: DatabaseIdentity;
  readonly restored: RestoreEvidence;
}

/**
 * The backup in a database of its own on the scratch server, compared with its ledger, and cut off from the rest of the world
 * before anything in it could reach out. One per run and kind: a repetition drops it and makes it anew.
 *
 * @throws StepError `StepRefused` with every reason why it cannot be made there; as `restoreBackup` does
 */
export async function restoreIsolated(request: IsolatedRestore): Promise<RestoredCopy> {
  const { world, kind, ledger, production, ...rest } = request;
  const { service, workflowId, expiresAt } = world;
  const { target, server } = await createEmptyCopy({
    ...world,
    mark: { kind, service, workflowId, expiresAt },
    ledger,
    production,
  });
  let cutOff: Neutralized = { neutralized: [], unknown: [] };
  const restored = await restoreBackup({
    ...rest,
    ...world,
    target,
    ledger,
    isolate: async (client) => {
      const { isolation, ...said } = await neutralize(client);
      cutOff = said;
      return isolation;
    },
  });
  const { database } = target;
  return { database, server, restored: { freshDatabase: database, ...restored }, ...cutOff };
}

/** `<service>_scratch_<end of the run id>_<purpose>`. */
export const trialName = ({ service, runId }: ScratchWorld, purpose: CopyPurpose): string =>
  copyName(service, 'scratch', runId, purpose);

/**
 * Makes a copy of one of this run's databases, hands it to `work`, and drops it whatever happens. Whoever is connected to the
 * original is thrown out first, and so is what an earlier attempt left of the copy.
 *
 * @param work gets the copy as the scratch server's administrator reaches it
 */
export async function withTrialCopy<T>(
  world: ScratchWorld,
  { of, purpose }: { readonly of: string; readonly purpose: CopyPurpose },
  work: (target: ConnectionTarget) => Promise<T>,
): Promise<T> {
  const note = `A copy of "${of}", for the part "${purpose}" of a rehearsal: it is dropped at its end.`;
  const { service, workflowId, expiresAt } = world;
  const mark = { service, workflowId, expiresAt, note };
  const copy = await createTemplateCopy({ ...world, of, name: trialName(world, purpose), mark });
  try {
    return await work(copy.target);
  } finally {
    // Also after an abort, when the step's own signal would not let it. What this cannot drop `dropRehearsal` will.
    await dropTemplateCopy({ ...world, signal: AbortSignal.timeout(DROP_LIMIT) }, copy).catch(() => undefined);
  }
}

const DROP_LIMIT = 60_000;

/**
 * Drops whatever the run's rehearsals have left on the scratch server: databases, then logins, sessions of theirs included. May
 * be called again.
 *
 * @returns names of what was dropped
 */
export async function dropRehearsal(world: ScratchWorld): Promise<string[]> {
  const { service, runId } = world;
  const aside = await dropSwapped(world);
  const named = COPY_PURPOSES.map((purpose) => trialName(world, purpose));
  const copies = await dropCopies(world, { service, kind: 'scratch', named });
  const logins = await withConnection(world.url, scratchSession(world), async (client) => {
    const roles = (await listMarkedRoles(client)).filter(
      ({ mark }) => mark.runId === runId && mark.service === service,
    );
    for (const { name } of roles) {
      await endSessions(client, { of: { role: name }, signal: world.signal });
      await dropMarkedRole(client, name);
    }
    return roles.map(({ name }) => `role ${name}`);
  });
  return [...aside, ...copies, ...logins];
}

/** What a rehearsed swap has renamed or was about to: their marks are those of a swap. */
export function dropSwapped(world: ScratchWorld): Promise<string[]> {
  const [replaced, fresh] = [trialName(world, 'swap'), trialName(world, 'swap_fresh')];
  return withConnection(world.url, scratchSession(world), async (client) => {
    const left = (await listMarkedDatabases(client)).filter(
      ({ name, mark }) =>
        mark.runId === world.runId &&
        ((mark.kind === 'kept-aside' && mark.facts?.['production'] === replaced) ||
          (mark.kind === 'restore' && (name === fresh || name === replaced))),
    );
    for (const { name } of left) await dropCopy(client, name, world);
    return left.map(({ name }) => name);
  });
}

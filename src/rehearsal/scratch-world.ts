/** The scratch server, as the rehearsal of one run uses it: what its parts are called with, and what they hand on. */
import type { IntegrationContext } from '../integrations/context.ts';
import type { ConnectionTarget } from '../postgres/connection-url.ts';
import type { ScratchServerAccess } from '../postgres/restore/scratch-copy.ts';

export interface ScratchWorld extends ScratchServerAccess {
  readonly service: string;
  readonly workflowId: string;
  /** ISO 8601. Everything that is made is marked with it: from then on a sweep offers to drop it. */
  readonly expiresAt: string;
}

/** What a copy is for; part of its name. One at a time of each purpose: making it anew drops the one before. */
export const COPY_PURPOSES = ['trial', 'deployed', 'swap', 'swap_fresh'] as const;
export type CopyPurpose = (typeof COPY_PURPOSES)[number];

/** A login role of production, as its catalog shows it: what somebody on the scratch server has to act like. */
export interface ImitatedRole {
  /** Part of the name of the login that imitates it. */
  readonly part: 'migrator' | 'application';
  readonly name: string;
  /** Whom it acts as after login: itself, or by `ALTER ROLE ... SET role`. Owns what it creates. */
  readonly actsAs: string;
  /** What holds in its sessions of the production database, by `ALTER ROLE` and `ALTER DATABASE`. Values may be secrets. */
  readonly settings: readonly { readonly name: string; readonly value: string }[];
  /** Memberships above it, itself included as a member. */
  readonly memberships: readonly {
    readonly role: string;
    readonly member: string;
    readonly inherit: boolean;
    readonly set: boolean;
  }[];
  /** Rights on the production database that it or somebody it is a member of has, e.g. `CREATE`. */
  readonly databaseRights: readonly string[];
  /** Attributes of the role it acts as that nobody can be given here, e.g. `SUPERUSER`. */
  readonly attributes: readonly string[];
}

/** A login of the scratch server in one copy, made for this run, with a password of its own. */
export interface RehearsalLogin {
  readonly target: ConnectionTarget;
  /** Whom its sessions act as: who owns what they create. */
  readonly actsAs: string;
  /** In which ways it is not what it imitates, in words for the plan. */
  readonly differences: readonly string[];
}

export interface DeployedRequest {
  readonly world: ScratchWorld;
  /** Database on which the upgrade was tried. Nobody is connected to it. */
  readonly upgraded: string;
  /** The service's own role. */
  readonly application: ImitatedRole;
  /** Of the run: its profile, secrets, signal. */
  readonly context: IntegrationContext;
  /** Cache of mirrors and checkouts. */
  readonly stateDirectory: string;
  readonly progress: (details: { readonly phase: string; readonly line?: string; readonly flow?: string }) => void;
}

/** What production is. */
import type { StepInput, StoredDocument } from './step.ts';

/** System identifier plus name tell a database apart; OID and timeline are noted beside. */
export interface DatabaseIdentity {
  readonly systemIdentifier: string;
  readonly database: string;
  readonly oid: number;
  readonly timeline: number;
  readonly serverVersion: string;
  readonly serverMajor: number;
  readonly encoding: string;
  readonly sizeBytes: number;
}

export interface ReplicationEvidence {
  readonly standbys: readonly {
    readonly name: string;
    readonly state: string;
    readonly lagBytes: number;
    readonly lagMilliseconds: number;
  }[];
}

export interface InspectInput extends StepInput {
  /** The object map production is expected to have: where its digest differs, `differences` says how. */
  readonly expected?: StoredDocument;
}

/** What production is, read in one snapshot. `objectMapDigest` counts valid indexes only; invalid ones are listed. */
export interface ProductionState {
  readonly identity: DatabaseIdentity;
  readonly versionRows: readonly string[];
  readonly versioned: 'versioned' | 'unversioned-empty' | 'unversioned-full';
  readonly objectMapDigest: string;
  readonly objectMap: StoredDocument;
  readonly invalidIndexes: readonly string[];
  /** How it differs from the map that was expected, 100 at most. */
  readonly differences?: readonly string[];
  readonly migratorSessions: number;
  /** Time-outs that the migrator's role carries itself, e.g. `lock_timeout=3s`: they hold where our part cannot be loaded. */
  readonly migratorSettings: readonly string[];
  readonly otherSessions: readonly { readonly role: string; readonly application: string; readonly count: number }[];
}

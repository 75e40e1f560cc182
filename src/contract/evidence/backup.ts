/** Evidence of a backup and of its verification. */
import type { DatabaseIdentity } from './production.ts';
import type { StepInput, StoredDocument } from './step.ts';

export interface CaptureBackupInput extends StepInput {
  /** Step id with its repetition, e.g. `backup.capture` or `apply.refresh-backup#2`: names the object. */
  readonly step: string;
}

export interface BackupEvidence {
  readonly uri: string;
  readonly bucket: string;
  readonly key: string;
  /** Of the encrypted object. */
  readonly bytes: number;
  readonly sha256: string;
  /** Of the dump before encryption. */
  readonly dumpBytes: number;
  readonly dumpSha256: string;
  readonly capturedAt: string;
  readonly lsn: string;
  readonly database: DatabaseIdentity;
  readonly versionRows: readonly string[];
  readonly objectMapDigest: string;
  /** JSON: rows per table, sequences, object map. Beside the backup. */
  readonly ledger: StoredDocument;
  readonly tables: number;
  readonly rows: number;
  readonly pgDumpVersion: string;
  /** How the dump was packed before encryption: `zstd`. */
  readonly compression: string;
  readonly encryption: string;
  /** Tables of which only a sample of the rows was checksummed, because they are larger than the profile's `sampleAbove`. */
  readonly sampledTables: number;
  readonly largeObjects: number;
  /** From the snapshot to the object's completion. */
  readonly milliseconds: number;
  /** URI of the manifest: this evidence and whose it is, in plain JSON beside the object. Written last: an object without one is half made. */
  readonly manifest: string;
}

/** What stands beside a backup in the store, readable without the age identity. */
export interface BackupManifest {
  readonly format: 'migration-runbook/backup/1';
  readonly service: string;
  readonly releaseTag: string;
  readonly changeTicket: string;
  readonly runId: string;
  readonly step: string;
  readonly backup: BackupEvidence;
  /** The last verification that passed. */
  readonly verified?: { readonly at: string; readonly milliseconds: number; readonly by: string };
}

export interface VerifyBackupInput extends StepInput {
  readonly backup: BackupEvidence;
}

export interface BackupVerification {
  readonly uri: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly dumpSha256: string;
  /** Entries of the contents list (`pg_restore --list`). */
  readonly entries: number;
  /** Every table of the ledger has a data entry in the archive. */
  readonly tableData: number;
  /** Bytes of SQL that the full decode produced. */
  readonly decodedBytes: number;
  readonly milliseconds: number;
  /** What bringing this backup back will take, restore, comparison and swap together, and what that is predicted from. */
  readonly predictedRestore: RestorePrediction;
}

export interface RestorePrediction {
  readonly milliseconds: number;
  /** `drill`: from the last recorded drill, scaled by size. `dump`: from the time the dump took, a rough factor. */
  readonly from: 'drill' | 'dump';
}
